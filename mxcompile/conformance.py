"""Golden vectors on disk: one ``<format>.npz`` a format, and ``manifest.json`` that says in words how they came about.

A vector file has, for each input of `mxcompile.vectors`, the arrays of `ARRAYS` under the names ``<input>__<array>``.
`mxcompile.conformance_check` holds another tool's output against them.
"""

import hashlib
import importlib.metadata
import inspect
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile import vectors
from mxcompile.errors import ConfigError, ExportError
from mxcompile.formats import FORMATS, Format, get_format
from mxcompile.formats.amxint import AMXINT4
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.integer import AsymmetricInteger
from mxcompile.formats.nvfp4 import NVFP4
from mxcompile.formats.scales import FloatScale, PowerOfTwo, Scale, ScaleRule

ARRAYS: Final = {
    "x": "float32 [rows, k]: the input; blocks run along k, and the rows of one array are one tensor",
    "codes": "uint8 [rows, k]: one code an element, in the low bits",
    "packed": "uint8 [rows, ceil(k * bits / 8)]: the codes without gaps, the first in the lowest bits, the rest 0",
    "scales": "uint8 [rows, groups, s]: the scale bytes; see scale_layout",
    "decoded": "float32 [rows, k]: what codes and scales stand for",
    "dot_a": "int64 [pairs]: the row that is the left operand of a dot product",
    "dot_w": "int64 [pairs]: the row that is the right operand",
    "dot_sums": "int64 [pairs, blocks, n]: exact sums of integer products; see dot_rule",
    "dot": "float64 [pairs]: the dot products, computed exactly from sums and scales and rounded once; see dot_rule",
}
"""The arrays of a vector file and what they hold."""

FORMAT: Final = "format"
"""Name of the array, a string, that says which format a file is of."""

MANIFEST: Final = "manifest.json"

_CONVENTIONS: Final = [
    "Arrays are called <input>__<array>; the array format is the format's name. Numbers are little-endian.",
    "code_values has what every code stands for at scale 1 and zero point or shift 0, scale_values every scale byte.",
    "In them NaN is null, and infinities are the strings inf and -inf.",
    "Codes, packed codes, scales and sums are compared by their bits.",
    "Decoded values are compared as numbers: -0 equals 0, and NaN equals NaN.",
    "Dot products may differ by what k products that are summed in float64 in any order may lose by rounding.",
]


def write_vectors(
    folder: str | os.PathLike[str], formats: Iterable[str] = (), *, force: bool = False
) -> dict[str, Any]:
    """Writes vector files and their manifest into a folder, all of them or none.

    Args:
        folder: The folder; its parent must exist.
        formats: Names of formats; every one if empty.
        force: Whether existing files are replaced. The manifest lists what this call wrote.

    Returns:
        The manifest.

    Raises:
        FormatError: An unknown format.
        ExportError: The folder cannot be made or written, or has such files already.
        ConfigError: Python runs without docstrings, which the manifest takes the rules from.
    """
    chosen = {get_format(name).name: get_format(name) for name in list(formats) or FORMATS}
    path = Path(folder).expanduser()
    names = [*(f"{name}.npz" for name in chosen), MANIFEST]
    existing = next((path / name for name in names if (path / name).exists()), None)
    if existing is not None and not force:
        raise ExportError(f"{existing}: exists already; add --force to replace it, or choose another folder")
    if path.exists() and not path.is_dir():
        raise ExportError(f"{folder}: is a file, not a folder; choose another output")
    if not path.absolute().parent.is_dir():
        raise ExportError(f"{folder}: there is no folder {path.absolute().parent}; create it first")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.absolute().parent) as made:
            entries = [_write_format(fmt, Path(made, f"{name}.npz")) for name, fmt in chosen.items()]
            content = _manifest(entries)
            Path(made, MANIFEST).write_text(_json(content), "utf-8")
            path.mkdir(exist_ok=True)
            for name in names:
                Path(made, name).replace(path / name)
    except OSError as error:
        raise ExportError(f"{folder}: could not be written: {error.strerror or error}") from error
    return content


def vector_arrays(fmt: Format) -> dict[str, npt.NDArray[Any]]:
    """Everything that a vector file of the format holds, by the names in it."""
    arrays: dict[str, npt.NDArray[Any]] = {FORMAT: np.array(fmt.name)}
    for name, x in vectors.inputs(fmt).items():
        result: dict[str, npt.NDArray[Any]] = {"x": x, **vectors.outputs(fmt, x)}
        if name in vectors.DOT_INPUTS:
            a, w = vectors.pairs(len(x))
            sums, dot = vectors.dots(fmt, result["codes"], result["scales"], a, w)
            result |= {"dot_a": a, "dot_w": w, "dot_sums": sums, "dot": dot}
        arrays |= {f"{name}__{kind}": array for kind, array in result.items()}
    return arrays


def code_values(fmt: Format) -> list[float]:
    """What every code stands for at scale 1 and zero point or shift 0, length ``2**bits``."""
    if not isinstance(fmt, AsymmetricInteger):
        return [float(value) for value in fmt.element.decode_table]
    return [*map(float, range(fmt.top + 1)), *([0.5, -0.5] if fmt.half_steps else [])]


def json_number(value: float) -> float | str | None:
    """A number as JSON has it: NaN is null, and infinities are the strings ``inf`` and ``-inf``."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _json(content: dict[str, Any]) -> str:
    """JSON with a line for each list of numbers. A quote or a bracket inside makes it no such list."""
    text = json.dumps(content, indent=1, allow_nan=False)
    return re.sub(r"\[\n([^\[\]{}\"]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _write_format(fmt: Format, path: Path) -> dict[str, Any]:
    """Writes a vector file and gives its entry in the manifest."""
    arrays: dict[str, Any] = vector_arrays(fmt)
    np.savez_compressed(path, **arrays)  # its members are dated 1980: the same bytes every time
    data = path.read_bytes()
    entry: dict[str, Any] = {
        "name": fmt.name,
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "description": fmt.description,
        "element": fmt.element.name,
        "bits": fmt.element.bits,
        "bits_per_element": fmt.bits_per_element,
        "block_size": fmt.block_size or "row",
        **_rules(fmt),
        "scale_layout": _scale_layout(fmt),
        "dot_rule": _dot_rule(fmt),
        "code_values": [json_number(value) for value in code_values(fmt)],
    }
    if isinstance(fmt, BlockScaled):
        entry["scale_values"] = [json_number(float(value)) for value in fmt.scale.decode_table]
    entry["arrays"] = {name: {"dtype": str(array.dtype), "shape": array.shape} for name, array in arrays.items()}
    return entry


def _manifest(formats: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "tool": "mxcompile",
        "version": importlib.metadata.version("mxcompile"),
        "conventions": _CONVENTIONS,
        "inputs": vectors.INPUTS,
        "arrays": ARRAYS,
        "formats": formats,
    }


def _rules(fmt: Format) -> dict[str, list[str]]:
    """The numbered rules of the format's docstring, what else it says, and what is particular to this format."""
    rules, notes = _sentences(type(fmt))
    if isinstance(fmt, AsymmetricInteger):
        return {"rules": rules, "notes": [*notes, f"p = {fmt.top}; half steps: {'yes' if fmt.half_steps else 'no'}"]}
    if not isinstance(fmt, BlockScaled):
        return {"rules": rules, "notes": notes}
    ties = fmt.rounding.value.replace("-", " ").replace("away", "away from zero")
    notes.append(f"asymmetric: {'yes' if fmt.asymmetric else 'no'}; elements round to the nearest, {ties}")
    return {"rules": rules, "notes": notes, "scale_rules": _scale_rules(fmt.scale)}


def _scale_rules(scale: Scale) -> list[str]:
    """What rules 2 and 4 of a block-scaled format refer to."""
    rules = _sentences(type(scale))[1]
    maximum = scale.element.maximum
    if isinstance(scale, PowerOfTwo):
        general, bullets = _sentences(ScaleRule)[1][1:]
        parts = dict(part.split(": ", 1) for part in re.split(r"(?:^| )- (?=[A-Z]+: )", bullets) if part)
        wanted = dict.fromkeys((ScaleRule.FLOOR.name, scale.rule.name))  # EVEN is told as a change of FLOOR
        rules += [f"The rule is {scale.rule.name}. {general}", *(f"{name}: {parts[name]}" for name in wanted)]
    if isinstance(scale, FloatScale):
        zero = "becomes 1" if scale.zero_is_one else "stays 0"
        rules.append(f"The float is {scale.name} up to {scale.type.maximum:g}; a scale that rounds to 0 {zero}.")
    rules.append(f"{scale.element.name}: maximum = {maximum:g}, emax = {math.frexp(maximum)[1] - 1}.")
    return [*rules, f"Byte of a block with NaN or Inf, Scale.nan: 0x{scale.nan:02X}."]


def _sentences(documented: type) -> tuple[list[str], list[str]]:
    """A docstring's numbered items and its other paragraphs, up to its list of attributes, without markup."""
    text = inspect.getdoc(documented)
    if text is None:
        raise ConfigError("the manifest's rules come from docstrings, which python -OO leaves out; run without -OO")
    numbered: list[str] = []
    others: list[str] = []
    for paragraph in re.split(r"\n\n", text.partition("\nAttributes:")[0].strip()):
        for part in re.split(r"\n(?=\d+\. )", paragraph):
            plain = re.sub(r"`+([^`]+)`+", r"\1", " ".join(part.split()))
            (numbered if re.match(r"\d+\. ", plain) else others).append(plain)
    return numbered, others


def _scale_layout(fmt: Format) -> str:
    blocks = "one group a block" if fmt.block_size else "one group a row"
    if isinstance(fmt, NVFP4):
        return (
            "s = 1. Groups 0 to 3 of every row: the tensor's scale, float32, little-endian; then one E4M3 byte a block"
        )
    if isinstance(fmt, AMXINT4):
        return f"s = 8, {blocks}: the scale, then the shift, both float32, little-endian"
    if isinstance(fmt, AsymmetricInteger):
        return f"s = 5, {blocks}: the scale as float32, little-endian, then the zero point"
    if fmt.scales_per_block == 2:
        return f"s = 2, {blocks}: one {fmt.scale_type} byte for positive elements, one for the others; see scale_values"
    return f"s = 1, {blocks}: one {fmt.scale_type} byte; see scale_values"


def _dot_rule(fmt: Format) -> str:
    """How an element is an integer, how many sums there are, and how they become the dot product."""
    exponent = math.frexp(vectors.unit(fmt))[1] - 1
    integer, square = f"integer = value of the code / 2**{exponent}", f"2**{2 * exponent}"
    if isinstance(fmt, AsymmetricInteger):
        integer = "integer = code - zero point"
        if fmt.half_steps:
            halves = f"{fmt.top + 1} (integer 1) and {fmt.top + 2} (integer -1)"
            integer = f"in half steps: integer = 2 * (code - zero point), except for the codes {halves}"
    if isinstance(fmt, AMXINT4):
        integer = "integer = fp32(code - shift), the code in two's complement"
    scale = "fp32(tensor scale * block scale)" if isinstance(fmt, NVFP4) else "the block's scale"
    total = f"dot = {square} * sum over blocks of scale_a * scale_w * sum; scale: {scale}"
    if fmt.scales_per_block == 2 and isinstance(fmt, BlockScaled):
        sums = "n = 4 sums of integer_a * integer_w by the signs of a and w: ++, +-, -+, --"
        total = f"dot = {square} * sum over blocks and signs of scale_a(sign of a) * scale_w(sign of w) * sum"
    elif vectors.sum_words(fmt) == 2:
        sums = "n = 2 words, high and low, of one sum of integer_a * integer_w = high * 2**32 + low, 0 <= low < 2**32"
    else:
        sums = "n = 1 sum of integer_a * integer_w"
    return f"{integer}. A block has {sums}. {total}. Both operands are rows of the same format."
