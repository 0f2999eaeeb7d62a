"""Operands on which energy is measured: what the bundled model multiplies on text that it was not trained on.

A stream is what one unit of an output-stationary array sees: the blocks of a row of A and a row of B, k ascending,
then those of the next output. Outputs are drawn at random from all products of the model, each product as often as
its share of multiply-accumulates says. Every format quantizes whole tensors by its own definition.
"""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile.formats import get_format
from mxcompile.formats.base import Format, to_blocks
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import E2M1, E5M2, Rounding
from mxcompile.formats.nvfp4 import TENSOR_SCALE_GROUPS
from mxcompile.formats.scales import FloatScale

Float32 = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

LANES: Final = 32
STREAMS: Final = 128
CLOCKS: Final = 48
SEED: Final = 20241117

_E5M2_BIAS: Final = 15
_E5M2_TOP: Final = 30
"""The largest exponent field of a number."""


@dataclasses.dataclass(frozen=True)
class Product:
    """Operands of one product of the model.

    Attributes:
        name: The node.
        a: float32 ``[m, k]``.
        b: float32 ``[n, k]``.
    """

    name: str
    a: Float32
    b: Float32

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return int(self.a.shape[0] * self.b.shape[0] * self.a.shape[1])


@dataclasses.dataclass(frozen=True)
class Choice:
    """What each clock of each stream multiplies, int64 ``[streams, clocks]`` each.

    Attributes:
        product: Index of the product.
        row: Row of A.
        column: Row of B.
        block: Block along k.
    """

    product: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    block: npt.NDArray[np.int64]

    @property
    def clear(self) -> npt.NDArray[np.bool_]:
        """Where a new sum starts, bool ``[streams, clocks]``."""
        return np.equal(self.block, 0)


@dataclasses.dataclass(frozen=True)
class Operands:
    """A stream of one operand of a unit.

    Attributes:
        codes: ``[streams, clocks, 32]``, uint8, or uint16 of float16.
        scales: uint8 ``[streams, clocks, s]``.
    """

    codes: Codes
    scales: npt.NDArray[np.uint8]

    @property
    def clocks(self) -> int:
        """Clocks of all streams."""
        return int(self.codes.shape[0] * self.codes.shape[1])


def capture(folder: Path, tokens: npt.NDArray[np.int64]) -> tuple[Product, ...]:
    """Runs a Hugging Face model in float32 and keeps both operands of every MatMul whose k is a multiple of 32.

    Args:
        folder: The model.
        tokens: One window of tokens, int64 ``[length]``.
    """
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    from mxcompile import exporter, onnx_file
    from mxcompile.kv_cache import empty_cache

    with tempfile.TemporaryDirectory() as name, exporter.open_model(str(folder)) as exported:
        onnx_file.write_model(exported.models["model.onnx"], Path(name, "model.onnx"))
        proto = onnx.load(str(Path(name, "model.onnx")))
    weights = {each.name: each for each in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type == "MatMul"]
    wanted = sorted({name for node in nodes for name in node.input if name not in weights})
    known = {each.name for each in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {
        "input_ids": tokens[None],
        "attention_mask": np.ones((1, len(tokens)), np.int64),
        "position_ids": np.arange(len(tokens))[None],
    }
    inputs = session.get_inputs()
    feeds |= empty_cache([each for each in inputs if each.name.startswith("past_key_values")], 1)
    feeds = {each.name: feeds[each.name] for each in inputs}
    values = dict(zip(wanted, session.run(wanted, feeds), strict=True))
    values |= {name: numpy_helper.to_array(weight) for name, weight in weights.items()}
    return tuple(product for node in nodes for product in _products(node.name, *(values[i] for i in node.input)))


def _products(name: str, a: Float32, b: Float32) -> list[Product]:
    """The products of a MatMul, one a matrix of the batch (an attention's heads)."""
    if (a.ndim != 4 and b.ndim != 2) or a.shape[-1] % LANES:
        return []
    b = np.broadcast_to(b, (*a.shape[:-2], *b.shape[-2:]))
    matrices = zip(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]), strict=True)
    return [
        Product(f"{name}:{index}", np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(columns.T, np.float32))
        for index, (rows, columns) in enumerate(matrices)
    ]


def choose(products: Sequence[Product], streams: int = STREAMS, clocks: int = CLOCKS, seed: int = SEED) -> Choice:
    """Draws the outputs of every stream."""
    random = np.random.default_rng(seed)
    share = np.array([product.macs / product.a.shape[1] for product in products], np.float64)
    rows = []
    for _ in range(streams):
        chosen: list[tuple[int, int, int, int]] = []
        while len(chosen) < clocks:
            index = int(random.choice(len(products), p=share / share.sum()))
            product = products[index]
            row, column = int(random.integers(len(product.a))), int(random.integers(len(product.b)))
            chosen += [(index, row, column, block) for block in range(product.a.shape[1] // LANES)]
        rows.append(chosen[:clocks])
    table = np.array(rows, np.int64)
    return Choice(*(table[..., index] for index in range(4)))


def operands(products: Sequence[Product], choice: Choice, a_format: str, b_format: str) -> tuple[Operands, Operands]:
    """Both operands' streams in their formats."""
    a = _gather(a_format, [product.a for product in products], choice.product, choice.row, choice.block)
    b = _gather(b_format, [product.b for product in products], choice.product, choice.column, choice.block)
    return a, b


def random_operands(format_name: str, like: Operands, seed: int) -> Operands:
    """Uniform random codes, NaN and Inf excepted, with the scales of other operands in random order."""
    random = np.random.default_rng(seed)
    bits = _code_bits(format_name)
    codes = random.integers(0, 1 << bits, like.codes.shape)
    sign = 1 << (bits - 1)
    codes = np.minimum(codes & (sign - 1), _LARGEST_CODES.get(format_name, sign)) | (codes & sign)
    scales = like.scales.reshape(like.clocks, like.scales.shape[-1])
    return Operands(codes.astype(like.codes.dtype), random.permutation(scales).reshape(like.scales.shape))


def activations(products: Sequence[Product], choice: Choice) -> Codes:
    """Blocks of activations, as a quantizer sees them: bits of float16 ``[streams, clocks, 32]``."""
    return _gather("float16", [p.a for p in products], choice.product, choice.row, choice.block).codes


def digest(products: Sequence[Product], choice: Choice) -> str:
    """SHA-256 of the chosen blocks in float32, before any format."""
    found = hashlib.sha256()
    chosen = zip(*(x.ravel().tolist() for x in (choice.product, choice.row, choice.column, choice.block)), strict=True)
    for product, row, column, block in chosen:
        at = slice(LANES * block, LANES * (block + 1))
        found.update(products[product].a[row, at].tobytes())
        found.update(products[product].b[column, at].tobytes())
    return found.hexdigest()


def _gather(
    name: str,
    tensors: Sequence[Float32],
    index: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    block: npt.NDArray[np.int64],
) -> Operands:
    """Blocks of quantized tensors; each tensor is quantized once, as a whole."""
    shape = index.shape
    first_codes, first_scales = encode(name, tensors[int(index.flat[0])][:1])
    codes = np.zeros((*shape, LANES), first_codes.dtype)
    scales = np.zeros((*shape, first_scales.shape[-1]), np.uint8)
    for number in np.unique(index).tolist():
        all_codes, all_scales = encode(name, tensors[number])
        where = index == number
        codes[where] = all_codes[row[where], block[where]]
        scales[where] = all_scales[row[where], block[where]]
    return Operands(codes, scales)


def encode(name: str, rows: Float32) -> tuple[Codes, npt.NDArray[np.uint8]]:
    """Quantizes rows ``[m, k]`` as one tensor.

    Returns:
        Codes ``[m, k / 32, 32]`` and what a unit gets as scales, uint8 ``[m, k / 32, s]``: the scale bytes of a block;
        of integers the row's zero point; nothing of float16.
    """
    blocks = (len(rows), -1, LANES)
    if name == "float16":
        half = rows.astype(np.float16).view(np.uint16).reshape(blocks)
        return half, np.zeros((*half.shape[:2], 0), np.uint8)
    if name == "amxfp4_synced":
        return encode_synced(to_blocks(rows, LANES))
    format_ = _format(name)
    codes, scales = format_.encode_rows(rows)
    codes = codes.reshape(blocks)
    if format_.block_size == 0:
        scales = np.broadcast_to(scales[..., -1:], (*codes.shape[:2], 1))
    elif format_.per_tensor:
        scales = scales[:, TENSOR_SCALE_GROUPS:, 0].reshape(*codes.shape[:2], -1)
    return codes, np.ascontiguousarray(scales)


def encode_synced(blocks: Float32) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """AMXFP4 with synced scales: ``2**(floor(log2(extreme)) - 2) * (1 + t / 4)`` for each side of a block.

    t are the top two mantissa bits of the block's absolute maximum, the same for both sides. A byte has the fields of
    E5M2 without subnormals; a side without elements has the lowest exponent. Elements round to nearest, ties away.
    Source: the AMXFP4 authors' emulator, scale modes with a synced mantissa.

    Args:
        blocks: float32 ``[..., 32]``, finite.

    Returns:
        Codes uint8 ``[..., 32]`` and scales uint8 ``[..., 2]``: positive, negative.
    """
    sides = np.stack([np.maximum(blocks, 0).max(axis=-1), np.maximum(-blocks, 0).max(axis=-1)], axis=-1)
    significand, _ = np.frexp(sides.max(axis=-1, keepdims=True))
    t = np.where(significand > 0, np.floor(significand * 8) - 4, 0)
    fields = np.where(sides > 0, np.frexp(sides)[1] - 1 - 2 + _E5M2_BIAS, 0).clip(0, _E5M2_TOP)
    values = np.ldexp(1 + t / 4, fields - _E5M2_BIAS).astype(np.float32)
    scale = np.where(blocks > 0, values[..., :1], values[..., 1:])
    codes = E2M1.encode_signed(np.divide(blocks, scale, dtype=np.float32), Rounding.TIES_AWAY)
    return codes, (fields * 4 + t).astype(np.uint8)


_SYMMETRIC_TWIN: Final = BlockScaled(
    name="fp4_e5m2",
    element=E2M1,
    scale=FloatScale(E2M1, type=E5M2, nan_byte=0x7F),
    asymmetric=False,
    rounding=Rounding.TIES_AWAY,
    summary="amxfp4 with one scale a block",
)


def _format(name: str) -> Format:
    return _SYMMETRIC_TWIN if name == "fp4_e5m2" else get_format(name)


_LARGEST_CODES: Final = {"float16": 0x7BFF, "mxfp8_e4m3": 0x7E, "mxfp8_e5m2": 0x7B}
"""The largest code that is a number, without its sign, where others are not."""


def _code_bits(name: str) -> int:
    if name == "float16":
        return 16
    return 4 if name == "amxfp4_synced" else _format(name).element.bits


def far_scales(operand: Operands, scale_value: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]) -> dict[int, float]:
    """Share of blocks with two scales whose quotient is above ``2**j``, for j from 0 to 8.

    A side without elements does not count: its scale meets no product.
    """
    codes, scales = operand.codes.reshape(-1, LANES), operand.scales.reshape(-1, 2)
    both = ((codes > 0) & (codes < 8)).any(axis=1) & (codes > 8).any(axis=1)
    exponents = np.log2(scale_value(scales))
    distance = np.abs(exponents[:, 0] - exponents[:, 1])
    return {j: float(np.mean(both & (distance > j))) for j in range(9)}
