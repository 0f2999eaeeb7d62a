"""OCP microscaling formats (MX): elements in blocks of 32 with one power-of-two scale.

Source: [OCP] Microscaling Formats (MX) v1.0, sections 5 and 6; checked against the AMXFP4 authors' emulator, which was
itself cross-checked with microxcaling (tests/golden).

Elements round ties away from zero by default, as microxcaling's "nearest" and that emulator do; ties to even, which AMD
Quark's ONNX operator uses, is ``dataclasses.replace(fmt, rounding=Rounding.TIES_TO_EVEN)``.
"""

from typing import Final

from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import E2M1, E2M3, E3M2, E4M3, E5M2, INT8, Element, Rounding
from mxcompile.formats.scales import PowerOfTwo, ScaleRule


def mx(name: str, element: Element, rule: ScaleRule = ScaleRule.FLOOR) -> BlockScaled:
    """An MX format: E8M0 scales, ``8 / 32`` bits per element more than the element's own.

    An all-zero block has scale byte 0 (2**-127). NaN or Inf anywhere in a block: scale byte 0xFF.
    """
    return BlockScaled(
        name=name,
        element=element,
        scale=PowerOfTwo(element, rule),
        asymmetric=False,
        rounding=Rounding.TIES_AWAY,
        summary=f"OCP microscaling, {rule.name} scales",
    )


MXFP4: Final = mx("mxfp4", E2M1)
"""4.25 bits per element."""

MXFP4_EVEN: Final = mx("mxfp4_even", E2M1, ScaleRule.EVEN)
"""mxfp4 whose scale is one power higher where amax's significand is 1.75 or more: AMD Quark's default."""

MXFP6_E3M2: Final = mx("mxfp6_e3m2", E3M2)
"""6.25 bits per element; four codes in three bytes."""

MXFP6_E2M3: Final = mx("mxfp6_e2m3", E2M3)
"""6.25 bits per element; four codes in three bytes."""

MXFP8_E4M3: Final = mx("mxfp8_e4m3", E4M3)
"""8.25 bits per element; elements saturate at 448."""

MXFP8_E5M2: Final = mx("mxfp8_e5m2", E5M2)
"""8.25 bits per element; elements saturate at 57344."""

MXINT8: Final = mx("mxint8", INT8)
"""8.25 bits per element; two's complement, -127/64 to 127/64."""
