"""The number formats: NumPy definitions, readable and bit-exact; speed lives in custom_ops/."""

from typing import Final

from mxcompile.formats.amxfp4 import AMXFP4
from mxcompile.formats.base import BlockTensor, Format, parse_name
from mxcompile.formats.mxfp import MXFP4

__all__ = ["AMXFP4", "FORMATS", "MXFP4", "NONE", "BlockTensor", "Format", "get_format"]

NONE: Final = "none"
"""Stands for "leave the operand as it is" wherever a format is named."""

FORMATS: Final[dict[str, Format]] = {
    "amxfp4": AMXFP4("amxfp4"),
    "mxfp4": MXFP4("mxfp4"),
}
"""Every format by its name; ``_b16``, ``_b32``, ``_b64`` behind the name choose another block size."""


def get_format(name: str) -> Format:
    """The format of that name, such as ``amxfp4``, ``mxfp4`` or ``amxfp4_b16`` (blocks of 16).

    Raises:
        FormatError: Unknown name (the known ones are listed), or a block size that the format cannot have.
    """
    return parse_name(FORMATS, name)
