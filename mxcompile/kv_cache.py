"""The key-value cache of a decoder: what its inputs and outputs are called, what is in them, how large they are.

A float cache is what optimum exports: an input ``past_key_values.N.key`` and an output ``present.N.key`` a layer, and
the same of ``value``. In a packed cache (see `mxcompile.passes.PackCache`) several tensors, the parts, stand in the
place of one, called ``past_key_values.N.key.codes`` and so on. docs/kv-cache.md describes them.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mxcompile.errors import UnsupportedModelError
from mxcompile.formats import Format
from mxcompile.formats.packing import packed_size

if TYPE_CHECKING:
    from onnxruntime import NodeArg

PAST: Final = "past_key_values."
PRESENT: Final = "present."
"""What optimum's exporter calls the inputs and outputs of the cache: ``past_key_values.0.key``, ``present.0.key``."""

CODES: Final = "codes"
SCALES: Final = "scales"
TAIL: Final = "tail"
"""Parts of a packed tensor; there is a tail where blocks lie along the sequence."""

DTYPES: Final[dict[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
"""Types of inputs of a cache, by what onnxruntime calls them."""

METADATA: Final = "mxcompile.kv_cache"
"""Model: JSON object that describes the packed cache (see `describe`). Absent where the whole cache is in float."""

SKIPPED: Final = "mxcompile.kv_cache.skipped"
"""Model: JSON object from names of inputs of the cache that stay in float to the reason, in words for the user."""

VERSION: Final = 1
"""Version of the layout of a packed cache."""

HEAD_DIM: Final = "head_dim"
SEQUENCE: Final = "sequence"
Axis = Literal["head_dim", "sequence"]
Dim = int | str | None
"""A dimension: its size, its name, or None where nothing is known."""


@dataclasses.dataclass(frozen=True)
class CacheFormat:
    """How one tensor of the cache, the keys or the values of a layer, is packed.

    Attributes:
        format: The format of its blocks.
        axis: What the blocks lie along: ``head_dim`` (each token by itself) or ``sequence`` (blocks of tokens).
    """

    format: Format
    axis: Axis

    @property
    def block_bytes(self) -> int:
        """Bytes of the codes of a complete block; every block size is a multiple of 8 elements."""
        return packed_size(self.format.block_size, self.format.element.bits)

    def shapes(self, shape: Sequence[Dim], head_dim: int) -> dict[str, list[Dim]]:
        """Shapes of the parts, in the order of the inputs.

        Args:
            shape: ``[batch, heads, tokens]`` of the float tensor.
            head_dim: Its last dimension.
        """
        batch, heads, tokens = shape
        groups, per_group = self.format.scale_groups(head_dim), self.format.scales_per_block
        if self.axis == HEAD_DIM:
            row = packed_size(head_dim, self.format.element.bits)
            return {CODES: [batch, heads, tokens, row], SCALES: [batch, heads, tokens, groups, per_group]}
        blocks, rest = _divided(tokens, self.format.block_size)
        return {
            CODES: [batch, heads, head_dim, _times(blocks, self.block_bytes)],
            SCALES: [batch, heads, head_dim, blocks, per_group],
            TAIL: [batch, heads, rest, head_dim],
        }

    def nbytes(self, batch: int, heads: int, tokens: int, head_dim: int, float_bytes: int) -> int:
        """Bytes of all parts together.

        Args:
            batch: Sequences.
            heads: Heads of keys and values, each stored once.
            tokens: Tokens in the cache, padding included.
            head_dim: Elements of a token in a head.
            float_bytes: Bytes of an element of the tail: 4 in a float32 model, 2 in a float16 model.
        """
        total = 0
        for part, dims in self.shapes([batch, heads, tokens], head_dim).items():
            sizes = [dim for dim in dims if isinstance(dim, int)]
            assert len(sizes) == len(dims)  # no names went in
            total += math.prod(sizes) * (float_bytes if part == TAIL else 1)
        return total


def is_float_past(name: str) -> bool:
    """Whether an input is a tensor of a float cache, and no part of a packed one."""
    return name.startswith(PAST) and name.rpartition(".")[2] not in (CODES, SCALES, TAIL)


def present_of(past: str) -> str:
    """The output that becomes the input ``past`` of the next step: ``present.0.key`` of ``past_key_values.0.key``."""
    return PRESENT + past.removeprefix(PAST)


def part_of(name: str, part: str) -> str:
    """The name of a part of a packed tensor: ``past_key_values.0.key.codes``."""
    return f"{name}.{part}"


def empty_shape(dims: Sequence[Dim], batch: int = 1) -> list[int]:
    """The shape of an input of a cache before the first token.

    One rule serves float and packed caches: what has no fixed size is the batch if it stands first, and else grows
    from 0.
    """
    return [dim if isinstance(dim, int) else batch * (axis == 0) for axis, dim in enumerate(dims)]


def empty_cache(inputs: Iterable["NodeArg"], batch: int = 1) -> dict[str, npt.NDArray[Any]]:
    """The inputs of a cache before the first token.

    Args:
        inputs: What the session says about its inputs; those of other names do not matter.
        batch: Sequences.

    Raises:
        UnsupportedModelError: A cache of another type than `DTYPES`.
    """
    empty = {}
    for value in inputs:
        if value.name.startswith(PAST):
            if value.type not in DTYPES:
                raise UnsupportedModelError(f"input {value.name} is a {value.type}; known are {', '.join(DTYPES)}")
            empty[value.name] = np.zeros(empty_shape(value.shape, batch), DTYPES[value.type])
    return empty


def describe(tensors: Mapping[str, CacheFormat | None]) -> str | None:
    """The metadata of a model's cache, None if nothing of it is packed.

    ``{"version": 1, "layers": 2, "key": {"format": "amxfp4", "axis": "head_dim"}, "value": {"format": "amxfp4",
    "axis": "sequence", "block": 32}}``. ``key`` or ``value`` is null where none is packed. Layers that are not like
    the first packed one stand in ``exceptions``, by the name of their input, null for float.

    Args:
        tensors: Inputs of the float cache, ``past_key_values.0.key`` and so on, in order; None for those in float.
    """
    if not any(tensors.values()):
        return None
    kinds: dict[str, Any] = {}
    for kind in ("key", "value"):
        packed = [each for name, each in tensors.items() if _kind(name) == kind and each is not None]
        kinds[kind] = _to_json(packed[0], kind) if packed else None
    exceptions = {
        name: described
        for name, each in tensors.items()
        if (described := _to_json(each, _kind(name))) != kinds.get(_kind(name))
    }
    layers = len({name.removeprefix(PAST).split(".")[0] for name in tensors})
    content = {"version": VERSION, "layers": layers, **kinds} | ({"exceptions": exceptions} if exceptions else {})
    return json.dumps(content)


def _kind(name: str) -> str:
    """``key`` or ``value``."""
    return name.rpartition(".")[2]


def _to_json(packed: CacheFormat | None, kind: str) -> dict[str, Any] | None:
    if packed is None:
        return None
    block = {"block": packed.format.block_size} if kind == "value" else {}
    return {"format": packed.format.name, "axis": packed.axis} | block


def _divided(tokens: Dim, block: int) -> tuple[Dim, Dim]:
    """Complete blocks, and the tokens behind them."""
    if tokens is None or isinstance(tokens, int):
        return (None, None) if tokens is None else divmod(tokens, block)
    name = f"({tokens})" if " " in tokens else tokens
    return f"{name} // {block}", f"{name} % {block}"


def _times(dim: Dim, factor: int) -> Dim:
    return f"{dim} * {factor}" if isinstance(dim, str) else dim and dim * factor
