"""Which unit multiplies a pair of formats, which one quantizes, and how many bytes an operand takes."""

import dataclasses
from typing import Final

from mxcompile.cost.engine import FLOATS, Engine
from mxcompile.errors import CostModelError, FormatError
from mxcompile.formats import FORMATS, NONE, Format, get_format
from mxcompile.formats.integer import AsymmetricInteger
from mxcompile.formats.packing import packed_size

FLOAT_BYTES: Final = dict(zip(FLOATS, (8, 4, 2, 2), strict=True))
"""Floating-point operands, and bytes of an element."""

FP16: Final = "fp16"
"""The unit of every product with a floating-point operand."""

UNIT_LANES: Final = 32
"""Lanes of every unit; blocks of a multiple of them run on the unit of blocks of 32, whose scales stay for longer."""

DOT_UNITS: Final[dict[tuple[str, str], str]] = {
    ("int8", "int8"): "int8_int8",
    ("int8", "int4"): "int4_int8",
    ("int8", "dint4"): "dint4_int8",
    ("int4", "int4"): "int4_int4",
    ("mxint8", "mxint8"): "mxint8",
    ("mxfp8_e4m3", "mxfp8_e4m3"): "mxfp8_e4m3",
    ("mxfp8_e5m2", "mxfp8_e5m2"): "mxfp8_e5m2",
    ("mxfp6_e2m3", "mxfp6_e2m3"): "mxfp6_e2m3",
    ("mxfp6_e3m2", "mxfp6_e3m2"): "mxfp6_e3m2",
    ("mxfp4", "mxfp4"): "mxfp4",
    ("mxfp4_even", "mxfp4_even"): "mxfp4",
    ("mxfp4_even", "mxfp4"): "mxfp4",
    ("mxfp4", "mxfp4_even"): "mxfp4",
    ("nvfp4", "nvfp4"): "nvfp4",
    ("amxfp4", "amxfp4"): "amxfp4_tagged",
    ("amxfp4_pot", "amxfp4_pot"): "amxfp4_pot",
    ("amxfp4_pot_r", "amxfp4_pot_r"): "amxfp4_pot",
    ("amxfp4_pot", "amxfp4_pot_r"): "amxfp4_pot",
    ("amxfp4_pot_r", "amxfp4_pot"): "amxfp4_pot",
}
"""The unit of a pair: activations' format, weights' format. How scales were rounded does not matter to a product."""

QUANTIZERS: Final[dict[str, tuple[str, str]]] = {
    "amxfp4": ("quantize_amxfp4", ""),
    "amxfp4_pot": ("quantize_amxfp4_pot", ""),
    "amxfp4_pot_r": ("quantize_amxfp4_pot", "by the unit of other rounding; scales take one more comparison"),
    "mxfp4": ("quantize_mxfp4", ""),
    "mxfp4_even": ("quantize_mxfp4", "by the unit of other rounding; scales take one more comparison"),
    "mxfp6_e2m3": ("quantize_mxfp6_e2m3", ""),
    "mxfp6_e3m2": ("quantize_mxfp6_e3m2", ""),
    "mxfp8_e4m3": ("quantize_mxfp8_e4m3", ""),
    "mxfp8_e5m2": ("quantize_mxfp8_e5m2", ""),
    "mxint8": ("quantize_mxint8", ""),
    "nvfp4": ("quantize_nvfp4", ""),
    "int8": ("quantize_int8", "by exact division as its definition asks, which a reciprocal would do for less"),
    "int4": ("quantize_int8", "by the unit of int8, whose exact division has more bits than it needs"),
    "dint4": ("quantize_int8", "by the unit of int8, whose exact division has more bits than it needs"),
}
"""The quantizer of a format, and what is not exact about it."""

QUANTIZER_READS: Final = {"int8": 2, "int4": 2, "dint4": 2, "nvfp4": 2}
"""How often a quantizer reads an element: twice where a scale is of a whole row or tensor, first for its range."""

TENSOR_SCALES: Final = ("nvfp4",)
"""Formats with a scale of the whole tensor: the vector unit finds the largest magnitude and scales finished sums."""

OPS_PER_INTEGER_SUM: Final = 6
"""Vector operations for each int32 sum: two zero points times sums of codes, two subtractions, two scales."""

SYMMETRIC_TWINS: Final[dict[str, str]] = {"amxfp4": "fp4_e5m2", "amxfp4_pot": "mxfp4", "amxfp4_pot_r": "mxfp4"}
"""The unit that a format with two scales a block would have with one scale of the same type."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A unit that was chosen.

    Attributes:
        name: Of the unit.
        remark: What is not exact about the choice; empty if it is the format's own unit.
    """

    name: str
    remark: str = ""


def is_float(name: str) -> bool:
    """Whether an operand's format is floating point, not one of ours."""
    return name in FLOAT_BYTES


def base_format(name: str) -> str:
    """A format's name without its block size: ``amxfp4`` of ``amxfp4_b64``."""
    base, found, size = name.rpartition("_b")
    return base if found and size.isdigit() else name


def dot_unit(a_format: str, b_format: str, engine: Engine) -> Chosen:
    """The unit that multiplies two operands.

    1. A pair named in the engine's ``[units]`` (``mxfp8_e4m3 x mxfp4``, or ``amxfp4`` for both operands) takes that.
    2. A product with a floating-point operand runs on FP16 units, the other operand decoded at the array's edge.
    3. Other pairs take that of `DOT_UNITS`. Blocks must be as long as the unit has lanes, or a multiple.

    Args:
        a_format: Of the activations.
        b_format: Of the weights.
        engine: The engine.

    Raises:
        CostModelError: There is no unit for the pair.
    """
    a, b = base_format(a_format), base_format(b_format)
    pair = f"{a} x {b}"
    named = engine.units.get(pair) or (engine.units.get(a) if a == b else None)
    if named is not None:
        return Chosen(named)
    if is_float(a) or is_float(b):
        if is_float(a) and is_float(b):
            return Chosen(FP16, "" if a == b == "float16" else f"{pair} is multiplied as float16")
        return Chosen(FP16, f"{pair} is multiplied as float16; the codes are decoded at the array's edge, for nothing")
    if (a, b) not in DOT_UNITS:
        raise CostModelError(
            f"no unit multiplies {pair}; units exist for {', '.join(dict.fromkeys(DOT_UNITS.values()))}; name the one "
            f"to use in the engine file: [units] {pair!r} = ..."
        )
    for name in (a_format, b_format):
        fmt = _format(name)
        if fmt.block_size % UNIT_LANES and base_format(name) != "nvfp4":  # whose unit takes two blocks of 16
            raise CostModelError(
                f"no unit multiplies blocks of {fmt.block_size} ({name}): the units have {UNIT_LANES} lanes with one "
                f"set of scales; name the one to use in the engine file: [units] {pair!r} = ..."
            )
    return Chosen(DOT_UNITS[a, b])


def quantizer(name: str, engine: Engine) -> Chosen:
    """The unit that quantizes to a format.

    Raises:
        CostModelError: There is none.
    """
    base = base_format(name)
    named = engine.units.get(f"quantize_{base}")
    if named is not None:
        return Chosen(named)
    if base not in QUANTIZERS:
        raise CostModelError(
            f"no unit quantizes to {base}; units exist for {', '.join(QUANTIZERS)}; name the one to use in the engine "
            f"file: [units] quantize_{base} = ..."
        )
    unit, remark = QUANTIZERS[base]
    return Chosen(unit, f"{base} is quantized {remark}" if remark else "")


def row_bytes(name: str, size: int) -> tuple[int, int]:
    """Bytes of the codes and of the scales of a row of ``size`` elements; floating point has no scales."""
    if name in FLOAT_BYTES:
        return FLOAT_BYTES[name] * size, 0
    fmt = _format(name)
    return packed_size(size, fmt.element.bits), fmt.scale_groups(size) * fmt.scales_per_block


def quantizer_reads(name: str) -> int:
    """How often the quantizer of a format reads an element."""
    return QUANTIZER_READS.get(base_format(name), 1)


def has_tensor_scale(name: str) -> bool:
    """Whether a format has a scale of the whole tensor."""
    return base_format(name) in TENSOR_SCALES


def integer_sums(a_format: str, b_format: str, k: int) -> int:
    """int32 sums that are corrected and scaled outside the unit, for one output: one a block, or one for whole rows.

    Units of block-scaled formats scale and accumulate themselves; those of integers add products of unsigned codes.
    """
    formats = [_format(name) for name in (a_format, b_format) if name not in FLOAT_BYTES]
    if len(formats) < 2 or not all(isinstance(fmt, AsymmetricInteger) for fmt in formats):
        return 0
    return max(-(-k // (fmt.block_size or max(k, 1))) for fmt in formats)


def known_operand(name: str) -> bool:
    """Whether the name of an operand's format is one that `row_bytes` knows."""
    return name in FLOAT_BYTES or base_format(name) in FORMATS


def _format(name: str) -> Format:
    try:
        return get_format(name)
    except FormatError as error:
        known = ", ".join((*FLOAT_BYTES, *FORMATS))
        wrong = f"{NONE!r} is no operand" if name == NONE else f"unknown operand format {name!r}"
        raise CostModelError(f"{wrong}; known are {known}") from error
