"""The number formats: NumPy definitions, readable and bit-exact; speed lives in custom_ops/."""

from typing import Final

from mxcompile.formats import amxfp4, amxint, integer, mxfp, nvfp4
from mxcompile.formats.base import BlockTensor, Format, parse_name

__all__ = ["FORMATS", "NONE", "BlockTensor", "Format", "get_format"]

NONE: Final = "none"
"""Stands for "leave the operand as it is" wherever a format is named."""

FORMATS: Final[dict[str, Format]] = {
    "amxfp4": amxfp4.AMXFP4,
    "amxfp4_pot": amxfp4.AMXFP4_POT,
    "amxfp4_pot_r": amxfp4.AMXFP4_POT_R,
    "amxfp4_e4m3": amxfp4.AMXFP4_E4M3,
    "mxfp4": mxfp.MXFP4,
    "mxfp4_even": mxfp.MXFP4_EVEN,
    "mxfp6_e3m2": mxfp.MXFP6_E3M2,
    "mxfp6_e2m3": mxfp.MXFP6_E2M3,
    "mxfp8_e4m3": mxfp.MXFP8_E4M3,
    "mxfp8_e5m2": mxfp.MXFP8_E5M2,
    "mxint8": mxfp.MXINT8,
    "nvfp4": nvfp4.NVFP4_FORMAT,
    "amxint4": amxint.AMXINT4_FORMAT,
    "dint4": integer.DINT4,
    "dint3": integer.DINT3,
    "int4": integer.INT4,
    "int8": integer.INT8,
}
"""Every format by its name; ``_b16``, ``_b32``, ``_b64`` behind the name choose another block size."""


def get_format(name: str) -> Format:
    """The format of that name, such as ``amxfp4``, ``mxfp4`` or ``amxfp4_b16`` (blocks of 16).

    Raises:
        FormatError: Unknown name (the known ones are listed), or a block size that the format cannot have.
    """
    return parse_name(FORMATS, name)
