"""Shared scales: how the extreme of a block becomes a scale byte, and what that byte is worth.

A scale is one byte. Like an element it is made by counting thresholds, so that NumPy, the graph bodies and C++ agree.
"""

import abc
import dataclasses
import enum
import functools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mxcompile.formats.elements import E8M0_BIAS, E8M0_NAN, Element, e8m0_decode_table

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter

_FLOAT32_EMAX = 127


class ScaleRule(enum.Enum):
    """How a power-of-two scale follows from a block's absolute maximum.

    With ``emax`` the exponent of the element's largest value, ``maximum`` that value, and m its stored mantissa bits:

    - FLOOR: ``floor(log2(amax)) - emax``. Source: [OCP] MX v1.0 section 6.3.
    - EVEN: FLOOR, plus 1 where amax's significand is at least ``2 - 2**-(m + 1)`` (1.75 for E2M1), that is where it
      would round up to the next power of two. Source: AMD Quark, torchao; the AMXFP4 authors' PoT-R.
    - CEIL: ``ceil(log2(amax)) - emax``. Source: torchao.
    - RCEIL: ``ceil(log2(amax / maximum))``, the quotient in float32. Source: NVIDIA's recipe for MXFP8.
    """

    FLOOR = "floor"
    EVEN = "even"
    CEIL = "ceil"
    RCEIL = "rceil"


@dataclasses.dataclass(frozen=True)
class Scale(abc.ABC):
    """A kind of shared scale.

    Attributes:
        element: The element that is scaled.
    """

    element: Element

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The byte's type, such as ``E5M2``."""

    @property
    @abc.abstractmethod
    def nan(self) -> int:
        """The byte of a block that is not finite."""

    @property
    @abc.abstractmethod
    def decode_table(self) -> npt.NDArray[np.float32]:
        """Value of every byte, float32 ``[256]``."""

    @abc.abstractmethod
    def encode(self, extreme: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Scale bytes of non-negative finite float32 extremes of any shape."""

    @abc.abstractmethod
    def emit_encode(self, op: "GraphWriter", extreme: "ir.Value") -> "ir.Value":
        """Writes `encode` as operators; the bytes come as float32."""


@dataclasses.dataclass(frozen=True)
class PowerOfTwo(Scale):
    """E8M0: ``2**(byte - 127)``, clamped at byte 0; an extreme of 0 has byte 0 too.

    Attributes:
        rule: How the exponent follows from the extreme.
    """

    rule: ScaleRule = ScaleRule.FLOOR

    @property
    def name(self) -> str:
        """E8M0."""
        return "E8M0"

    @property
    def nan(self) -> int:
        """0xFF."""
        return E8M0_NAN

    @property
    def decode_table(self) -> npt.NDArray[np.float32]:
        """See `e8m0_decode_table`."""
        return e8m0_decode_table()

    @functools.cached_property
    def thresholds(self) -> npt.NDArray[np.float32]:
        """The smallest extreme (quotient for RCEIL) of each byte from 1 on; infinite ones, which none reaches, cut."""
        emax = int(np.floor(np.log2(self.element.maximum)))
        exponents = np.arange(1, E8M0_NAN) - E8M0_BIAS  # of the scales
        if self.rule is ScaleRule.RCEIL:
            powers = np.ldexp(1.0, exponents - 1)
        elif self.rule is ScaleRule.FLOOR:
            powers = np.ldexp(1.0, exponents + emax)
        elif self.rule is ScaleRule.EVEN:
            top = sum(value >= 2.0**emax for value in self.element.values)  # of the largest exponent
            mantissa_bits = int(np.ceil(np.log2(top)))  # E4M3's largest exponent lacks the code of NaN
            powers = np.ldexp(2 - 2.0 ** -(mantissa_bits + 1), exponents - 1 + emax)
        else:
            powers = np.ldexp(1.0, exponents - 1 + emax)
        thresholds = powers[powers <= np.finfo(np.float32).max].astype(np.float32)
        if self.rule in (ScaleRule.CEIL, ScaleRule.RCEIL):  # a power of two itself does not round up
            thresholds = np.nextafter(thresholds, np.float32(np.inf))
        return thresholds

    def encode(self, extreme: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """See `Scale.encode`."""
        if self.rule is ScaleRule.RCEIL:
            extreme = np.divide(extreme, self.element.maximum, dtype=np.float32)
        return np.searchsorted(self.thresholds, extreme, side="right").astype(np.uint8)

    def emit_encode(self, op: "GraphWriter", extreme: "ir.Value") -> "ir.Value":
        """See `Scale.emit_encode`."""
        if self.rule is ScaleRule.RCEIL:
            extreme = op.Div(extreme, op.float32(self.element.maximum))
        return op.count(extreme, self.thresholds)


@dataclasses.dataclass(frozen=True)
class FloatScale(Scale):
    """``extreme / maximum`` in float32, a zero becoming 1, rounded to an 8-bit float, ties away from zero, saturating.

    Attributes:
        type: The 8-bit float; its sign bit is unused.
        nan_byte: Byte of a block that is not finite; decodes to NaN.
        zero_is_one: Whether a scale that rounds to 0 becomes 1 as well.
    """

    type: Element
    nan_byte: int
    zero_is_one: bool = False

    @property
    def name(self) -> str:
        """The type's name."""
        return self.type.name

    @property
    def nan(self) -> int:
        """See `nan_byte`."""
        return self.nan_byte

    @functools.cached_property
    def decode_table(self) -> npt.NDArray[np.float32]:
        """See `Element.decode_table`."""
        table = self.type.decode_table.copy()
        table[self.nan_byte] = np.nan
        return table

    @property
    def _one(self) -> int:
        return self.type.values.index(1.0)

    def encode(self, extreme: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """See `Scale.encode`."""
        raw = np.divide(extreme, self.element.maximum, dtype=np.float32)
        raw[raw == 0] = 1
        codes = self.type.encode(raw)
        if self.zero_is_one:
            codes[codes == 0] = self._one
        return codes

    def emit_encode(self, op: "GraphWriter", extreme: "ir.Value") -> "ir.Value":
        """See `Scale.emit_encode`."""
        zero = op.float32(0)
        raw = op.Div(extreme, op.float32(self.element.maximum))
        codes = self.type.emit_encode(op, op.Where(op.Equal(raw, zero), op.float32(1), raw))
        if self.zero_is_one:
            codes = op.Where(op.Equal(codes, zero), op.float32(self._one), codes)
        return codes
