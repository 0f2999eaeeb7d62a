"""AMXFP4: E2M1 elements in blocks with two scales, one for the positive and one for the negative elements.

Outliers make the two sides of a block's distribution unequal; a scale for each side follows both, without
calibration. Source: [AMX] Lee et al., AMXFP4, Findings of ACL 2025 (arXiv 2411.09909), section 4; the exact steps are
those of the authors' emulator, with which every format here agrees bit for bit (tests/golden).
"""

from typing import Final

from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import E2M1, E4M3_480, E5M2, Rounding
from mxcompile.formats.scales import FloatScale, PowerOfTwo, Scale, ScaleRule


def _amxfp4(name: str, scale: Scale, summary: str) -> BlockScaled:
    return BlockScaled(
        name=name, element=E2M1, scale=scale, asymmetric=True, rounding=Rounding.TIES_AWAY, summary=summary
    )


AMXFP4: Final = _amxfp4(
    "amxfp4",
    FloatScale(E2M1, type=E5M2, nan_byte=0x7F),
    "one scale for the positive, one for the negative elements",
)
"""E5M2 scales, subnormals of step 2**-16 included: 4 + 16/32 = 4.5 bits per element.

A scale saturates at 57344; below 2**-17 it is 0. A side without elements, and both sides of an all-zero block, have
scale 1.0 (byte 0x3C). Decoded values have 5 significant bits: exact in bfloat16 too. NaN or Inf: both scales 0x7F.
"""

AMXFP4_POT: Final = _amxfp4("amxfp4_pot", PowerOfTwo(E2M1), "amxfp4 with power-of-two scales (FLOOR)")
"""E8M0 scales ``2**(floor(log2(extreme)) - 2)`` a side. Source: the emulator's scale mode 0 (PoT).

A side without elements has byte 0. NaN or Inf: both scales 0xFF.
"""

AMXFP4_POT_R: Final = _amxfp4(
    "amxfp4_pot_r", PowerOfTwo(E2M1, ScaleRule.EVEN), "amxfp4 with power-of-two scales (EVEN)"
)
"""As amxfp4_pot, one power higher where the significand is 1.75 or more. Source: the emulator's mode 3 (PoT-R)."""

AMXFP4_E4M3: Final = _amxfp4(
    "amxfp4_e4m3",
    FloatScale(E2M1, type=E4M3_480, nan_byte=0xFF, zero_is_one=True),
    "amxfp4 with E4M3 scales up to 480",
)
"""E4M3 scales whose last code is 480, as the emulator's mode 143 has it; a scale that rounds to 0 becomes 1.

All 127 codes are numbers, so NaN or Inf is said by the unused sign bit: both scales 0xFF (source: this project).
"""
