"""Another tool's output held against ours, to the first bit that differs."""

import dataclasses
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile import vectors
from mxcompile.conformance import ARRAYS, FORMAT, code_values, json_number
from mxcompile.errors import FormatError
from mxcompile.formats import Format, get_format
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.nvfp4 import NVFP4, TENSOR_SCALE_GROUPS

Array = npt.NDArray[Any]

_CHECKED: Final = ("codes", "packed", "scales", "decoded", "dot_sums", "dot")

_ROUNDOFF: Final = 2.0**-53
"""Largest relative error of one float64 rounding. Source: IEEE 754-2019, binary64."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first place where two arrays differ.

    Attributes:
        index: Where, one number an axis.
        block: The block along the row; None where that has no meaning.
        ours: Our value as `json_number` gives it; for what is not a code of the format, None.
        theirs: The other tool's value.
        ours_bits: Our value as it is stored, such as ``0b0101`` or ``0x3F800000``.
        theirs_bits: The other tool's.
    """

    index: tuple[int, ...]
    block: int | None
    ours: float | str | None
    theirs: float | str | None
    ours_bits: str
    theirs_bits: str

    def __str__(self) -> str:
        """The difference in words."""
        block = "" if self.block is None else f" in block {self.block}"
        ours, theirs = ("NaN" if value is None else value for value in (self.ours, self.theirs))
        return f"{list(self.index)}{block}: ours {ours} = {self.ours_bits}, theirs {theirs} = {self.theirs_bits}"


@dataclasses.dataclass(frozen=True)
class ArrayCheck:
    """One array of a file, compared.

    Attributes:
        name: Its name in the file.
        compared: Elements that were compared.
        differing: Those that differ.
        first: The first of them.
    """

    name: str
    compared: int
    differing: int
    first: Difference | None


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """A file, compared.

    Attributes:
        file: Its path.
        format: The format that it was held against.
        arrays: One result an array.
        ignored: Arrays that were not looked at: those without ``__`` in their names.
    """

    file: str
    format: str
    arrays: tuple[ArrayCheck, ...]
    ignored: tuple[str, ...]

    @property
    def failed(self) -> list[ArrayCheck]:
        """The arrays that differ."""
        return [array for array in self.arrays if array.differing]

    def __str__(self) -> str:
        """What differs, in a line."""
        found = f"{self.file}: {len(self.failed)} of {len(self.arrays)} arrays differ from {self.format}"
        return "; ".join([found, *(f"first {array.name}{array.first}" for array in self.failed[:1])])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values."""
        return {"ok": not self.failed, **dataclasses.asdict(self)}


def check_vectors(path: str | os.PathLike[str], format: str | None = None) -> CheckReport:
    """Holds the arrays of a file against what the format's definition gives.

    Codes, packed codes, scales and sums are compared by their bits; decoded values as numbers, so that -0 equals 0 and
    NaN equals NaN; dot products allow for the rounding of k products that are summed in float64 in any order.

    Args:
        path: A .npz file with any of the arrays of a vector file. The inputs are the file's own ``<input>__x`` where
            it has them, and otherwise ours; likewise the pairs of rows.
        format: The format's name; otherwise the file's array ``format`` decides, or else the file's own name.

    Raises:
        FormatError: The file cannot be read, the format is unknown, an array has a wrong name, dtype or shape, or
            there is nothing to compare.
    """
    arrays = _load(path)
    fmt = _format_of(path, arrays, format)
    named, ignored = _by_input(path, arrays)
    ours = vectors.inputs(fmt)
    checks: list[ArrayCheck] = []
    for name, theirs in named.items():
        where = f"{path}: {name}"
        x = theirs.get("x", ours.get(name))
        if x is None:
            raise FormatError(f"{where}__x is missing, and {name} is none of our inputs: {', '.join(ours)}")
        _expect("x", x.dtype == np.float32 and x.ndim == 2 and x.size > 0, x, where, "not empty")
        expected = vectors.outputs(fmt, x)
        slack = np.zeros(0)
        if "dot" in theirs or "dot_sums" in theirs:
            a, w = _pairs(theirs, len(x), where)
            expected["dot_sums"], expected["dot"] = vectors.dots(fmt, expected["codes"], expected["scales"], a, w)
            slack = _dot_slack(expected["decoded"], a, w)
        for kind in _CHECKED:
            if kind in theirs:
                _expect_like(kind, expected[kind], theirs[kind], where)
                checks.append(_compare(fmt, f"{name}__{kind}", expected[kind], theirs[kind], slack))
    if not checks:
        some = ", ".join(f"normal__{kind}" for kind in _CHECKED)
        raise FormatError(f"{path}: has nothing to compare; arrays have names such as {some}")
    return CheckReport(os.fspath(path), fmt.name, tuple(checks), ignored)


def _load(path: str | os.PathLike[str]) -> dict[str, Array]:
    try:
        if not zipfile.is_zipfile(path):
            Path(path).open("rb").close()  # says so if it cannot be opened
            raise FormatError(f"{path}: is no .npz file; write one with numpy.savez")
        with np.load(path, allow_pickle=False) as data:
            return {name: np.asarray(data[name]) for name in data.files}  # members that are no arrays are bytes
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, FormatError):
            raise
        detail = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FormatError(f"{path}: cannot be read as .npz: {detail}") from error


def _format_of(path: str | os.PathLike[str], arrays: Mapping[str, Array], name: str | None) -> Format:
    if name is not None:
        return get_format(name)
    if FORMAT in arrays:
        name, source = str(arrays[FORMAT]), "its array `format` says"
    else:
        name, source = Path(path).stem, "its name says"
    try:
        return get_format(name)
    except FormatError as error:
        raise FormatError(f"{path}: {source} {name!r}, give --format: {error}") from error


def _by_input(
    path: str | os.PathLike[str], arrays: Mapping[str, Array]
) -> tuple[dict[str, dict[str, Array]], tuple[str, ...]]:
    """The arrays by input and kind, and the names of those that have neither."""
    named: dict[str, dict[str, Array]] = {}
    ignored = []
    for name, array in arrays.items():
        prefix, separator, kind = name.rpartition("__")
        if not separator:
            ignored += [name] if name != FORMAT else []
        elif kind not in ARRAYS:
            raise FormatError(f"{path}: {name}: is no known array; allowed are <input>__ and {', '.join(ARRAYS)}")
        else:
            named.setdefault(prefix, {})[kind] = array
    return named, tuple(ignored)


def _expect(kind: str, right: bool, array: Array, where: str, more: str = "") -> None:
    if not right:
        wanted = ARRAYS[kind].partition(":")[0] + (f", {more}" if more else "")
        raise FormatError(f"{where}__{kind}: is {array.dtype} {list(array.shape)}; {wanted} is expected")


def _expect_like(kind: str, ours: Array, theirs: Array, where: str) -> None:
    right = theirs.dtype == ours.dtype and theirs.shape == ours.shape
    _expect(kind, right, theirs, where, f"here {list(ours.shape)}")


def _pairs(theirs: Mapping[str, Array], rows: int, where: str) -> tuple[vectors.Int64, vectors.Int64]:
    """The file's pairs of rows, or ours."""
    a, w = vectors.pairs(rows)
    if "dot_a" not in theirs and "dot_w" not in theirs:
        return a, w
    for kind in ("dot_a", "dot_w"):
        array = theirs.get(kind)
        if array is None:
            raise FormatError(f"{where}__{kind}: is missing; dot_a and dot_w belong together")
        integers = np.issubdtype(array.dtype, np.integer) and array.shape == theirs["dot_a"].shape and array.ndim == 1
        in_range = bool(integers and array.size and array.min() >= 0 and array.max() < rows)
        _expect(kind, in_range, array, where, f"of one length, rows from 0 to {rows - 1}")
    return theirs["dot_a"].astype(np.int64), theirs["dot_w"].astype(np.int64)


def _dot_slack(decoded: Array, a: vectors.Int64, w: vectors.Int64) -> npt.NDArray[np.float64]:
    """How far a float64 sum of k products may be from the exact value.

    That is ``k * unit roundoff * sum |a| |w|``: each product and each of k - 1 sums rounds once. Two more cover terms
    of second order, the rounding of our value, and decoded values that float32 rounds below sums times scales.
    """
    wide = np.abs(decoded.astype(np.float64))
    slack: npt.NDArray[np.float64] = (decoded.shape[1] + 2) * _ROUNDOFF * (wide[a] * wide[w]).sum(axis=-1)
    return slack


def _compare(fmt: Format, name: str, ours: Array, theirs: Array, slack: npt.NDArray[np.float64]) -> ArrayCheck:
    kind = name.rpartition("__")[2]
    with np.errstate(invalid="ignore", over="ignore"):  # theirs may be any bits
        differs = ours != theirs
        if kind in ("decoded", "dot"):
            differs &= ~(np.isnan(ours) & np.isnan(theirs))
        if kind == "dot":
            differs &= ~(np.abs(ours - theirs) <= slack)
    places = np.argwhere(differs)
    first = None
    if len(places):
        index = tuple(map(int, places[0]))
        values = [_value(fmt, kind, array[index]) for array in (ours, theirs)]
        bits = [_bits(fmt, kind, array[index]) for array in (ours, theirs)]
        first = Difference(index, _block(fmt, kind, index), values[0], values[1], bits[0], bits[1])
    return ArrayCheck(name, int(ours.size), len(places), first)


def _value(fmt: Format, kind: str, item: Any) -> float | str | None:
    """What a number of an array stands for; of the codes and one-byte scales, what they are worth."""
    if kind == "codes":
        values = code_values(fmt)
        return json_number(values[item]) if item < len(values) else None
    if kind == "scales" and isinstance(fmt, BlockScaled):
        return json_number(float(fmt.scale.decode_table[item]))
    return json_number(float(item)) if kind in ("decoded", "dot") else int(item)


def _bits(fmt: Format, kind: str, item: Any) -> str:
    if kind in ("decoded", "dot", "dot_sums"):
        digits = 2 * item.itemsize
        return f"0x{int.from_bytes(item.tobytes(), 'little'):0{digits}X}"
    return f"0b{item:0{fmt.element.bits if kind == 'codes' else 8}b}"


def _block(fmt: Format, kind: str, index: tuple[int, ...]) -> int | None:
    """The block that an element belongs to; none for dot products and NVFP4's tensor scale."""
    if kind == "dot":
        return None
    position = index[1]
    if kind == "scales" and isinstance(fmt, NVFP4):
        position -= TENSOR_SCALE_GROUPS
        return position if position >= 0 else None
    if kind in ("scales", "dot_sums"):
        return position
    if kind == "packed":
        position = position * 8 // fmt.element.bits
    return position // fmt.block_size if fmt.block_size else 0
