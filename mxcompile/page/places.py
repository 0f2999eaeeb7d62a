"""Where in a model a path lies: in which of its repeated blocks, and what it is called in each of them."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Final

_INDEXED: Final = re.compile(r"(?:(?P<list>.+)\.)?(?P<index>\d+)")
"""A component of a path that counts: ``layers.0`` of an exporter, or ``0`` by itself."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a path lies.

    Attributes:
        stack: Path of the list of blocks, such as ``/model/layers``; empty outside of all.
        block: Index in it; None outside of all.
        role: The rest of the path, the same in every block; outside of all the path without its leading slash.
    """

    stack: str
    block: int | None
    role: str


def place(path: str) -> Place:
    """Splits a path at the first component that counts.

    ``/model/layers.3/self_attn/q_proj`` is ``self_attn/q_proj`` of block 3 of ``/model/layers``; indices behind the
    first, such as those of experts, belong to the role.
    """
    parts = path.split("/")
    for position, part in enumerate(parts):
        found = _INDEXED.fullmatch(part)
        if found is not None:
            stack = "/".join([*parts[:position], *([found["list"]] if found["list"] else [])])
            role = "/".join(parts[position + 1 :]) or found["list"] or part
            return Place(stack, int(found["index"]), role)
    return Place("", None, path.removeprefix("/"))


def stack_labels(stacks: Iterable[str]) -> dict[str, str]:
    """What tells lists of blocks apart: the components in which their paths differ; nothing if there is one list.

    ``vision_model`` and ``text_model`` for ``/vision_model/encoder/layers`` and ``/text_model/encoder/layers``. Two
    towers count their blocks both from 0, so that roles need it.
    """
    paths = {stack: stack.strip("/").split("/") for stack in dict.fromkeys(stacks) if stack}
    if len(paths) < 2:
        return dict.fromkeys(paths, "")
    front = _common(list(paths.values()))
    back = _common([parts[front:][::-1] for parts in paths.values()])
    labels = {stack: "/".join(parts[front : len(parts) - back]) for stack, parts in paths.items()}
    return labels if all(labels.values()) else {stack: "/".join(parts) for stack, parts in paths.items()}


def _common(paths: list[list[str]]) -> int:
    """How many components the paths share at the front."""
    count = 0
    for column in zip(*paths, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count
