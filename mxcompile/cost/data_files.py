"""Reading the data files of the cost model: TOML tables that become frozen dataclasses, checked key by key."""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from mxcompile.errors import CostModelError

Status = Literal["measured", "published", "assumed"]
"""Where a figure comes from: our own characterization, a publication, or a choice of ours."""

STATUSES: Final[tuple[str, ...]] = get_args(Status)

DATA: Final = Path(__file__).parent / "data"
"""The files that are shipped."""

T = TypeVar("T")


def find_file(kind: str, name: str) -> Path:
    """The data file of that name.

    Args:
        kind: ``technology`` or ``engine``.
        name: Of a shipped one, such as ``freepdk45``, or the path of a .toml file.

    Raises:
        CostModelError: There is none; the shipped ones are listed.
    """
    if name.endswith(".toml"):
        return Path(name).expanduser()
    path = DATA / kind / f"{name}.toml"
    if "/" in name or not path.is_file():
        known = ", ".join(sorted(file.stem for file in (DATA / kind).glob("*.toml"))) or "none"
        raise CostModelError(f"unknown {kind} {name!r}: shipped are {known}; give one of them, or a path to FILE.toml")
    return path


def read_toml(path: Path, allowed: Collection[str]) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        path: The file.
        allowed: The keys that may stand at its top.

    Raises:
        CostModelError: It cannot be read, or has another key.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CostModelError(f"{path}: cannot be read as TOML: {error}") from error
    _check_keys(str(path), content, allowed, ())
    return content


def build(cls: type[T], where: str, values: Any) -> T:
    """Makes a dataclass of a TOML table whose keys are its fields.

    Numbers must be finite and not negative; a field named ``status`` must be one of `STATUSES`. Fields with a default
    may be left out, others may not.

    Args:
        cls: The dataclass; fields are str, int, float, each perhaps ``| None``, or a mapping of strings.
        where: File and table, for the message.
        values: The table.

    Raises:
        CostModelError: A key is missing or unknown, or a value is of another kind.
    """
    if not isinstance(values, Mapping):
        raise CostModelError(f"{where}: is {values!r}; a table is expected")
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    _check_keys(where, values, fields, required)
    kinds = typing.get_type_hints(cls)
    return cls(**{name: _checked(f"{where}: {name}", kinds[name], value) for name, value in values.items()})


def _check_keys(where: str, values: Mapping[str, Any], allowed: Collection[str], required: Collection[str]) -> None:
    for name in values:
        if name not in allowed:
            raise CostModelError(f"{where}: unknown key {name!r}; allowed are {', '.join(allowed)}")
    for name in required:
        if name not in values:
            raise CostModelError(f"{where}: {name!r} is missing; add it")


def _checked(where: str, kind: Any, value: Any) -> Any:
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if typing.get_origin(kind) is Literal:
        right, expected = value in get_args(kind), f"one of {', '.join(get_args(kind))}"
    elif str in kinds:
        right, expected = isinstance(value, str), "a string"
    elif int in kinds:
        right, expected = _is_number(value) and isinstance(value, int) and value >= 0, "a whole number from 0 up"
    elif float in kinds:
        right = _is_number(value) and math.isfinite(value) and value >= 0
        expected = "a finite number that is not negative"
    else:
        right = isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())
        expected = "a table of strings"
    if not right:
        raise CostModelError(f"{where}: is {value!r}; {expected} is expected")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
