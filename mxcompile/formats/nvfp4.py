"""NVFP4: E2M1 elements in blocks of 16 with E4M3 scales, and one float32 scale for the tensor.

Source: NVIDIA's two-level recipe as TorchAO and TensorRT Model Optimizer apply it; the layout of the scale bytes and
the rule for tensors that are not finite are this project's.
"""

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from mxcompile.formats.base import (
    Float32,
    Format,
    Uint8,
    emit_blocks,
    emit_rows,
    from_blocks,
    split_finite,
    to_blocks,
)
from mxcompile.formats.elements import E2M1, E4M3, Rounding

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter

SMALLEST_SCALE: Final = 2.0**-6
"""Block scales are clamped to it from below: E4M3's smallest normal value."""

NAN_SCALE: Final = 0x7F
"""E4M3 byte of a block with NaN or Inf."""

TENSOR_SCALE_GROUPS: Final = 4
"""Scale bytes before those of a row's blocks: the tensor scale, float32, little-endian, the same in every row."""

_EVEN = Rounding.TIES_TO_EVEN
_FULL = E4M3.maximum * E2M1.maximum


@dataclasses.dataclass(frozen=True)
class NVFP4(Format):
    """NVFP4: 4 + 8/16 = 4.5 bits per element, and 4 bytes a row.

    1. Tensor scale ``s_t = fp32(amax / (448 * 6))`` over the finite blocks of the whole tensor; a zero becomes 1.
    2. Block scale ``s_b``: ``fp32(fp32(amax_block / 6) / s_t)`` clamped to ``[2**-6, 448]``, rounded to E4M3, ties to
       even.
    3. ``q``: ``fp32(x / fp32(s_t * s_b))`` rounded to E2M1, ties to even, saturating at 6.
    4. Decoding: ``fp32(q * fp32(s_t * s_b))``.

    Weights store their tensor's scale. An activation's is taken at run time from the whole tensor that the operator
    gets, so that results depend on what else is in the batch; that is the format's definition.

    Scales are ``[..., 4 + ceil(k / 16), 1]``: the four bytes of s_t, then an E4M3 byte a block. Edge cases: ``-0`` and
    every element that rounds to zero have code 0; a ragged last block is simply shorter; NaN or Inf anywhere in a block
    makes it NaN (byte 0x7F, codes 0) and does not count for s_t.

    Attributes:
        tensor_amax: Absolute maximum of the tensor, if only a part of it is quantized.
    """

    tensor_amax: float | None = None

    @property
    def scale_type(self) -> str:
        """E4M3."""
        return "E4M3"

    @property
    def scales_per_block(self) -> int:
        """One."""
        return 1

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Only 16."""
        return (16,)

    @property
    def description(self) -> str:
        """A line for the table of formats."""
        return "E4M3 scales on top of one float32 scale a tensor"

    def scale_groups(self, size: int) -> int:
        """One a block, and four for the tensor's scale."""
        return super().scale_groups(size) + TENSOR_SCALE_GROUPS

    @property
    def per_tensor(self) -> bool:
        """Yes."""
        return True

    def for_tensor(self, amax: float) -> "NVFP4":
        """The format with the tensor scale of that absolute maximum."""
        return dataclasses.replace(self, tensor_amax=amax)

    def encode_rows(self, rows: Float32) -> tuple[Uint8, Uint8]:
        """See `Format.encode_rows`."""
        finite, x = split_finite(to_blocks(rows, self.block_size))
        amax = np.abs(x).max(axis=-1, keepdims=True)
        tensor_amax = amax.max(initial=0) if self.tensor_amax is None else self.tensor_amax
        tensor_scale = np.divide(tensor_amax, _FULL, dtype=np.float32) or np.float32(1)

        wanted = np.divide(amax, E2M1.maximum, dtype=np.float32) / tensor_scale
        scales = E4M3.encode(np.clip(wanted, np.float32(SMALLEST_SCALE), np.float32(E4M3.maximum)), _EVEN)
        codes = E2M1.encode_signed(x / (tensor_scale * E4M3.decode_table[scales]), _EVEN)
        scales = np.where(finite, scales, np.uint8(NAN_SCALE))
        tensor_bytes = np.array(tensor_scale, "<f4").reshape(1).view(np.uint8)[:, None]
        tensor_bytes = np.broadcast_to(tensor_bytes, (*rows.shape[:-1], TENSOR_SCALE_GROUPS, 1))
        return from_blocks(codes, rows.shape[-1]), np.concatenate([tensor_bytes, scales], axis=-2)

    def decode_rows(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `Format.decode_rows`."""
        with np.errstate(invalid="ignore", over="ignore"):  # foreign bytes
            values = E2M1.decode_table[to_blocks(codes, self.block_size)] * _block_scales(scales)
        return from_blocks(values, codes.shape[-1])

    @property
    def levels(self) -> Float32:
        """E2M1's values."""
        return E2M1.levels

    def row_units(self, rows: Float32, scales: Uint8) -> Float32:
        """See `Format.row_units`; the scale is the product of the tensor's and the block's."""
        return from_blocks(to_blocks(rows, self.block_size) / _block_scales(scales), rows.shape[-1])

    def code_units(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `Format.code_units`."""
        return E2M1.decode_table[codes]

    def emit_scale_groups(self, op: "GraphWriter", size: "ir.Value") -> "ir.Value":
        """See `scale_groups`."""
        return op.op("Add", [super().emit_scale_groups(op, size), op.vector([TENSOR_SCALE_GROUPS])])

    def emit_encode_rows(self, op: "GraphWriter", rows: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """See `encode_rows`."""
        finite, x = op.split_finite(emit_blocks(op, rows, self.block_size))
        amax = op.ReduceMax(op.Abs(x), op.LAST, keepdims=1)
        tensor_scale = op.Div(op.ReduceMax(amax, keepdims=1), op.float32(_FULL))
        tensor_scale = op.Where(op.Equal(tensor_scale, op.float32(0)), op.float32(1), tensor_scale)

        wanted = op.Div(op.Div(amax, op.float32(E2M1.maximum)), tensor_scale)
        clipped = op.Min(op.Max(wanted, op.float32(SMALLEST_SCALE)), op.float32(E4M3.maximum))
        scales = E4M3.emit_encode(op, clipped, _EVEN)
        scale = op.Mul(tensor_scale, op.lookup(E4M3.decode_table, scales))
        codes = E2M1.emit_encode_signed(op, op.Div(x, scale), _EVEN)
        scales = op.Where(finite, scales, op.float32(NAN_SCALE))
        shape = op.Concat(op.Shape(rows, end=2), op.vector([TENSOR_SCALE_GROUPS, 1]), axis=0)
        tensor_bytes = op.Transpose(op.float_bytes(tensor_scale), perm=[0, 1, 3, 2])
        return emit_rows(op, codes), op.Concat(op.Expand(tensor_bytes, shape), scales, axis=2)

    def emit_decode_rows(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """See `decode_rows`."""
        behind, axis = op.vector([TENSOR_SCALE_GROUPS]), op.vector([2])
        tensor_bytes = op.Slice(scales, op.vector([0]), behind, axis)
        tensor_scale = op.bytes_float(op.Transpose(tensor_bytes, perm=[0, 1, 3, 2]))
        block_scales = op.Slice(scales, behind, op.vector([np.iinfo(np.int64).max]), axis)
        scale = op.Mul(tensor_scale, op.lookup(E4M3.decode_table, block_scales))
        blocks = emit_blocks(op, codes, self.block_size)
        return emit_rows(op, op.Mul(op.lookup(E2M1.decode_table, blocks), scale))


def _block_scales(scales: Uint8) -> Float32:
    """The scale of each block, ``s_t * s_b``: float32 ``[..., blocks, 1]``."""
    tensor_bytes = np.ascontiguousarray(scales[..., :TENSOR_SCALE_GROUPS, 0])
    tensor_scale = tensor_bytes.view("<f4").astype(np.float32)[..., None]
    return tensor_scale * E4M3.decode_table[scales[..., TENSOR_SCALE_GROUPS:, :]]


NVFP4_FORMAT: Final = NVFP4("nvfp4", E2M1, block_size=16)
"""See `NVFP4`."""
