"""Number elements of 4 to 8 bits, as literal tables of their non-negative values.

An element is its table: code ``i`` (without the sign bit) stands for ``values[i]``. Rounding is a count: the code of
a magnitude ``v`` is the number of thresholds that do not exceed ``v``. Thresholds are the midpoints between
neighbouring values; for ties to even those midpoints that must round down move up by one float32. The graph
bodies and the C++ kernels use the same thresholds, so that all three agree bit for bit.

Saturation needs no case of its own: above the last midpoint the count stays at the largest code.
"""

import dataclasses
import enum
import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

_FLOAT = 1
"""TensorProto.FLOAT. Source: onnx.proto."""

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter


class Rounding(enum.Enum):
    """How a value exactly halfway between two neighbours is rounded.

    Source: the AMXFP4 authors' emulator and microxcaling call ``TIES_AWAY`` "nearest" (their default) and
    ``TIES_TO_EVEN`` "even"; IEEE 754-2019 section 4.3.1 has both.
    """

    TIES_AWAY = "ties-away"
    TIES_TO_EVEN = "ties-to-even"


class Segments(NamedTuple):
    """An element's table as pieces of equal steps: for each piece its first value, its first code, and its step."""

    starts: npt.NDArray[np.float32]
    codes: npt.NDArray[np.float32]
    steps: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Element:
    """A signed number of at most 8 bits.

    Attributes:
        name: The field's name, such as ``"E2M1"``.
        bits: Width including the sign bit.
        values: The non-negative finite values in the order of their codes.
        has_infinity: Whether the code after the last finite value is an infinity (the remaining ones are NaN).
        twos_complement: Whether a negative value has the two's complement of its magnitude's code, instead of that
            code with a sign bit on top.
    """

    name: str
    bits: int
    values: tuple[float, ...]
    has_infinity: bool = False
    twos_complement: bool = False

    @property
    def maximum(self) -> float:
        """The largest finite value."""
        return self.values[-1]

    @property
    def sign_bit(self) -> int:
        """The sign bit's weight in a code: 8 for a 4-bit element."""
        return 1 << (self.bits - 1)

    @functools.cached_property
    def decode_table(self) -> npt.NDArray[np.float32]:
        """Value of every code, float32 ``[2**bits]``, Inf and NaN codes included."""
        half = np.full(self.sign_bit, np.nan, np.float32)
        half[: len(self.values)] = self.values
        if self.has_infinity:
            half[len(self.values)] = np.inf
        if self.twos_complement:
            return np.concatenate([half, [-half[-1] - half[1]], -half[:0:-1]]).astype(np.float32)
        return np.concatenate([half, -half])

    @functools.cached_property
    def levels(self) -> npt.NDArray[np.float32]:
        """The finite values, both signs, that are produced: float32, ascending, each once."""
        values = np.array(self.values, np.float32)
        return np.concatenate([-values[:0:-1], values])

    @functools.cached_property
    def segments(self) -> Segments:
        """The table's pieces of equal steps; each is twice as coarse as the one before."""
        values = np.array(self.values, np.float64)
        steps = np.diff(values)
        first = np.flatnonzero(np.diff(steps, prepend=0))
        return Segments(values[first].astype(np.float32), first.astype(np.float32), steps[first].astype(np.float32))

    def thresholds(self, rounding: Rounding = Rounding.TIES_AWAY) -> npt.NDArray[np.float32]:
        """The smallest float32 magnitude that rounds to each code from 1 on, float32 ``[len(values) - 1]``."""
        values = np.array(self.values, np.float64)
        midpoints = ((values[:-1] + values[1:]) / 2).astype(np.float32)
        if rounding is Rounding.TIES_TO_EVEN:
            to_lower = np.arange(len(midpoints)) % 2 == 0  # the lower neighbour's code is even
            midpoints[to_lower] = np.nextafter(midpoints[to_lower], np.float32(np.inf))
        return midpoints

    def encode_signed(
        self, x: npt.NDArray[np.float32], rounding: Rounding = Rounding.TIES_AWAY
    ) -> npt.NDArray[np.uint8]:
        """Codes of float32 values of any shape and sign, saturating symmetrically; whatever rounds to 0 has code 0."""
        index = self.encode(np.abs(x), rounding)
        negative = np.uint8(0) - index if self.twos_complement else index + np.uint8(self.sign_bit)
        return np.where((x < 0) & (index > 0), negative, index)

    def emit_encode(
        self, op: "GraphWriter", magnitude: "ir.Value", rounding: Rounding = Rounding.TIES_AWAY
    ) -> "ir.Value":
        """Writes `encode` as operators; the codes come as float32.

        Within a segment the code is the number of steps from its start, rounded; subtracting the start is exact, and
        so is dividing by a power of two. (``Floor(x + 0.5)`` would be wrong just below 0.5.)
        """
        starts, codes, steps = self.segments
        count = op.Min(magnitude, op.float32(self.maximum))
        first_code = op.float32(0)
        if len(starts) == 1:
            count = op.Mul(count, op.float32(1 / steps[0]))
        else:
            segment = op.count(count, starts[1:])
            first_code = op.lookup(codes, segment)
            count = op.Mul(op.Sub(count, op.lookup(starts, segment)), op.lookup(np.float32(1) / steps, segment))
        if rounding is Rounding.TIES_TO_EVEN:
            rounded = op.Round(count)  # segments start at even codes
        else:
            whole = op.Floor(count)
            up = op.GreaterOrEqual(op.Sub(count, whole), op.float32(0.5))
            rounded = op.Add(whole, op.op("Cast", [up], {"to": _FLOAT}))
        return op.op("Add", [rounded, first_code])

    def emit_encode_signed(
        self, op: "GraphWriter", x: "ir.Value", rounding: Rounding = Rounding.TIES_AWAY
    ) -> "ir.Value":
        """Writes `encode_signed` as operators; the codes come as float32."""
        index, zero = self.emit_encode(op, op.Abs(x), rounding), op.float32(0)
        if self.twos_complement:
            negative = op.Sub(op.float32(2**self.bits), index)
        else:
            negative = op.Add(index, op.float32(self.sign_bit))
        is_negative = op.And(op.Less(x, zero), op.Greater(index, zero))
        return op.op("Where", [is_negative, negative, index])

    def encode(
        self, magnitude: npt.NDArray[np.float32], rounding: Rounding = Rounding.TIES_AWAY
    ) -> npt.NDArray[np.uint8]:
        """Codes (without sign) of non-negative float32 magnitudes of any shape, saturating.

        NaN is the caller's to handle: it never reaches this function from a format.
        """
        thresholds = self.thresholds(rounding)
        if len(thresholds) > 8:
            return np.searchsorted(thresholds, magnitude, side="right").astype(np.uint8)
        codes = np.zeros(magnitude.shape, np.uint8)
        for threshold in thresholds:  # a few whole-array compares beat a binary search per element
            codes += magnitude >= threshold
        return codes


E2M1 = Element("E2M1", 4, (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0))
"""FP4: 1 sign, 2 exponent, 1 mantissa bit, bias 1. Source: [OCP] MX v1.0 section 5.3.3, table 5."""

# fmt: off
# Source: [OCP] MX v1.0 section 5.3.2, table 4. One row an exponent; no Inf, no NaN.
E3M2 = Element("E3M2", 6, (
    0.0, 0.0625, 0.125, 0.1875,
    0.25, 0.3125, 0.375, 0.4375,
    0.5, 0.625, 0.75, 0.875,
    1.0, 1.25, 1.5, 1.75,
    2.0, 2.5, 3.0, 3.5,
    4.0, 5.0, 6.0, 7.0,
    8.0, 10.0, 12.0, 14.0,
    16.0, 20.0, 24.0, 28.0,
))
"""FP6 with more range: largest value 28."""

# Source: [OCP] MX v1.0 section 5.3.2, table 4. One row an exponent; no Inf, no NaN.
E2M3 = Element("E2M3", 6, (
    0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875,
    1.0, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875,
    2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75,
    4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5,
))
"""FP6 with more precision: largest value 7.5."""
# fmt: on

INT8 = Element("INT8", 8, tuple(code / 64 for code in range(128)), twos_complement=True)
"""Two's complement with an implicit scale of 2**-6: -127/64 to 127/64; -2 is decoded, but never produced.

Source: [OCP] MX v1.0 section 5.3.4, table 6 (which allows leaving -2 unused)."""

# Source: [OCP] OFP8 v1.0 table 1: 5 exponent bits, 2 mantissa bits, bias 15; 0x7C is Inf, 0x7D to 0x7F are NaN.
# One row an exponent; the first row holds the subnormals (step 2**-16).
# fmt: off
E5M2 = Element("E5M2", 8, (
    0.0, 1.52587890625e-05, 3.0517578125e-05, 4.57763671875e-05,
    6.103515625e-05, 7.62939453125e-05, 9.1552734375e-05, 0.0001068115234375,
    0.0001220703125, 0.000152587890625, 0.00018310546875, 0.000213623046875,
    0.000244140625, 0.00030517578125, 0.0003662109375, 0.00042724609375,
    0.00048828125, 0.0006103515625, 0.000732421875, 0.0008544921875,
    0.0009765625, 0.001220703125, 0.00146484375, 0.001708984375,
    0.001953125, 0.00244140625, 0.0029296875, 0.00341796875,
    0.00390625, 0.0048828125, 0.005859375, 0.0068359375,
    0.0078125, 0.009765625, 0.01171875, 0.013671875,
    0.015625, 0.01953125, 0.0234375, 0.02734375,
    0.03125, 0.0390625, 0.046875, 0.0546875,
    0.0625, 0.078125, 0.09375, 0.109375,
    0.125, 0.15625, 0.1875, 0.21875,
    0.25, 0.3125, 0.375, 0.4375,
    0.5, 0.625, 0.75, 0.875,
    1.0, 1.25, 1.5, 1.75,
    2.0, 2.5, 3.0, 3.5,
    4.0, 5.0, 6.0, 7.0,
    8.0, 10.0, 12.0, 14.0,
    16.0, 20.0, 24.0, 28.0,
    32.0, 40.0, 48.0, 56.0,
    64.0, 80.0, 96.0, 112.0,
    128.0, 160.0, 192.0, 224.0,
    256.0, 320.0, 384.0, 448.0,
    512.0, 640.0, 768.0, 896.0,
    1024.0, 1280.0, 1536.0, 1792.0,
    2048.0, 2560.0, 3072.0, 3584.0,
    4096.0, 5120.0, 6144.0, 7168.0,
    8192.0, 10240.0, 12288.0, 14336.0,
    16384.0, 20480.0, 24576.0, 28672.0,
    32768.0, 40960.0, 49152.0, 57344.0,
), has_infinity=True)
"""FP8 with the range of float16 (whose upper byte it is); largest finite value 57344, byte 0x7B."""

# Source: [OCP] OFP8 v1.0 table 1: 4 exponent bits, 3 mantissa bits, bias 7, no Inf; 0x7F is the only NaN.
E4M3 = Element("E4M3", 8, (
    0.0, 0.001953125, 0.00390625, 0.005859375, 0.0078125, 0.009765625, 0.01171875, 0.013671875,
    0.015625, 0.017578125, 0.01953125, 0.021484375, 0.0234375, 0.025390625, 0.02734375, 0.029296875,
    0.03125, 0.03515625, 0.0390625, 0.04296875, 0.046875, 0.05078125, 0.0546875, 0.05859375,
    0.0625, 0.0703125, 0.078125, 0.0859375, 0.09375, 0.1015625, 0.109375, 0.1171875,
    0.125, 0.140625, 0.15625, 0.171875, 0.1875, 0.203125, 0.21875, 0.234375,
    0.25, 0.28125, 0.3125, 0.34375, 0.375, 0.40625, 0.4375, 0.46875,
    0.5, 0.5625, 0.625, 0.6875, 0.75, 0.8125, 0.875, 0.9375,
    1.0, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875,
    2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75,
    4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5,
    8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
    16.0, 18.0, 20.0, 22.0, 24.0, 26.0, 28.0, 30.0,
    32.0, 36.0, 40.0, 44.0, 48.0, 52.0, 56.0, 60.0,
    64.0, 72.0, 80.0, 88.0, 96.0, 104.0, 112.0, 120.0,
    128.0, 144.0, 160.0, 176.0, 192.0, 208.0, 224.0, 240.0,
    256.0, 288.0, 320.0, 352.0, 384.0, 416.0, 448.0,
))
"""FP8 with more precision than range; largest value 448, byte 0x7E."""
# fmt: on

E4M3_480 = Element("E4M3", 8, (*E4M3.values, 480.0))
"""E4M3 whose last code is the number 480 and not NaN, as the AMXFP4 authors' emulator has it."""

E8M0_BIAS = 127
E8M0_NAN = 0xFF
"""E8M0: ``2**(code - 127)``, no sign, no zero, 0xFF is NaN. Source: [OCP] MX v1.0 section 5.4.1, table 7."""


def e8m0_decode_table() -> npt.NDArray[np.float32]:
    """Value of every E8M0 byte, float32 ``[256]``: code 0 is the subnormal ``2**-127``, 0xFF is NaN."""
    bits = np.arange(256, dtype=np.uint32) << 23  # float32 has the same exponent bias
    bits[0] = 0x0040_0000
    bits[E8M0_NAN] = 0x7FC0_0000
    return bits.view(np.float32)
