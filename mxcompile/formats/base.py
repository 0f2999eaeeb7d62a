"""What every block format has: the protocol, the packed tensor, and the way from a tensor to blocks and back."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mxcompile.errors import FormatError
from mxcompile.formats.elements import Element
from mxcompile.formats.packing import pack_codes, packed_size, unpack_codes

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]
Padding = Literal["constant", "edge"]
"""What fills the last block: zeros, or copies of the row's last element."""


@dataclasses.dataclass(frozen=True)
class BlockTensor:
    """A tensor in packed form: what QuantizeBlock gives and DequantizeBlock takes.

    Attributes:
        codes: uint8; the tensor's shape with the blocked axis replaced by ``ceil(k * bits / 8)`` bytes.
        scales: uint8; the tensor's shape with the blocked axis replaced by ``ceil(k / block_size)``, and a new last
            axis of ``scales_per_block``.
        size: Elements along the blocked axis, k.
        axis: The blocked axis of the original tensor; negative ones count from the end.
    """

    codes: Uint8
    scales: Uint8
    size: int
    axis: int

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales together."""
        return self.codes.nbytes + self.scales.nbytes


@dataclasses.dataclass(frozen=True)
class Format(abc.ABC):
    """Elements that share scales along one axis.

    A subclass says everything twice, side by side in one file: encoding and decoding in NumPy are the definition; the
    ``emit_`` methods write the same computation as ONNX operators, which becomes the body of the custom ops for an
    onnxruntime without our library.

    Attributes:
        name: The format's name in the CLI, in op attributes and in metadata, such as ``amxfp4`` or ``amxfp4_b16``.
        element: What a code stands for.
        block_size: Elements that share scales.
    """

    name: str
    element: Element
    _: dataclasses.KW_ONLY
    block_size: int = 32

    @property
    @abc.abstractmethod
    def scale_type(self) -> str:
        """Type of the scales, such as ``E5M2``."""

    @property
    @abc.abstractmethod
    def scales_per_block(self) -> int:
        """Scale bytes a block."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """A line for the table of formats."""

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """The block sizes that the format can have; 0 stands for whole rows."""
        return (16, 32, 64)

    @property
    def bits_per_element(self) -> float:
        """Stored bits per element of a long row, scales included."""
        return self.element.bits + (8 * self.scales_per_block / self.block_size if self.block_size else 0)

    def scale_groups(self, size: int) -> int:
        """Groups of `scales_per_block` bytes that a row of ``size`` elements has: one a block."""
        return -(-size // (self.block_size or max(size, 1)))

    @property
    def per_tensor(self) -> bool:
        """Whether the scales depend on the whole tensor; then its pieces are quantized by `for_tensor`."""
        return False

    def for_tensor(self, amax: float) -> "Format":
        """The format for pieces of a tensor with that absolute maximum."""
        return self

    @property
    def grows(self) -> bool:
        """Whether complete blocks stay as they are when their row gets longer: a cache along the sequence needs it."""
        return False

    @property
    def paired_activations(self) -> str:
        """The activations' format that goes with weights of this one by default: the same."""
        return self.name

    @abc.abstractmethod
    def encode_rows(self, rows: Float32) -> tuple[Uint8, Uint8]:
        """Codes uint8 ``[..., k]``, one an element, and scales uint8 ``[..., groups, s]`` of float32 ``[..., k]``."""

    @abc.abstractmethod
    def decode_rows(self, codes: Uint8, scales: Uint8) -> Float32:
        """The inverse of `encode_rows`: float32 ``[..., k]``."""

    @property
    @abc.abstractmethod
    def levels(self) -> Float32:
        """What codes stand for in units of their scales: float32, ascending, each value once."""

    @abc.abstractmethod
    def row_units(self, rows: Float32, scales: Uint8) -> Float32:
        """float32 ``[..., k]`` over the scales that `encode_rows` gave them: what is rounded, of the same shape."""

    @abc.abstractmethod
    def code_units(self, codes: Uint8, scales: Uint8) -> Float32:
        """What codes of `encode_rows` stand for in units of their scales, which `decode_rows` multiplies them by."""

    @abc.abstractmethod
    def emit_encode_rows(self, op: "GraphWriter", rows: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """Writes `encode_rows` as operators, for float32 rows ``[a, b, k]`` without empty axes.

        Codes and scales come as float32 tensors of whole numbers, ``[a, b, >= k]`` and ``[a, b, >= groups, s]``.
        """

    @abc.abstractmethod
    def emit_decode_rows(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """Writes `decode_rows` as operators, for int32 codes ``[a, b, n]`` and scales, without empty axes.

        The rows come as float32 ``[a, b, >= n]``.
        """

    def emit_scale_groups(self, op: "GraphWriter", size: "ir.Value") -> "ir.Value":
        """Writes `scale_groups` as operators, int64 ``[1]``."""
        if not self.block_size:
            return op.op("Min", [size, op.vector([1])])
        return op.op("Div", [op.Add(size, op.vector([self.block_size - 1])), op.vector([self.block_size])])

    def quantize(self, x: npt.ArrayLike, *, axis: int = -1) -> BlockTensor:
        """Quantizes a tensor in blocks along one axis.

        Args:
            x: float32 or float16 of any shape and rank at least 1; float16 is widened exactly.
            axis: The blocked axis.

        Raises:
            FormatError: Another dtype, a scalar, or an axis out of range.
        """
        x = np.asarray(x)
        if x.dtype not in (np.float32, np.float16):
            raise FormatError(f"{self.name}: input is {x.dtype}; float32 and float16 can be quantized, cast it first")
        axis = _normalize_axis(axis, x.ndim, self.name)
        rows = np.moveaxis(x, axis, -1).astype(np.float32)
        codes, scales = self.encode_rows(rows)
        return BlockTensor(
            codes=np.ascontiguousarray(np.moveaxis(pack_codes(codes, self.element.bits), -1, axis)),
            scales=np.ascontiguousarray(np.moveaxis(scales, -2, axis)),
            size=rows.shape[-1],
            axis=axis,
        )

    def dequantize(self, tensor: BlockTensor) -> Float32:
        """Decodes a packed tensor to float32 of the original shape.

        Raises:
            FormatError: Codes and scales whose shapes do not belong together.
        """
        tensor = dataclasses.replace(tensor, axis=_normalize_axis(tensor.axis, tensor.codes.ndim, self.name))
        self._check_shapes(tensor)
        packed = np.moveaxis(tensor.codes, tensor.axis, -1)
        scales = np.moveaxis(tensor.scales, tensor.axis, -2)
        rows = self.decode_rows(unpack_codes(packed, tensor.size, self.element.bits), scales)
        return np.ascontiguousarray(np.moveaxis(rows, -1, tensor.axis))

    def fake_quantize(self, x: npt.ArrayLike, *, axis: int = -1) -> Float32:
        """``dequantize(quantize(x))``: float32 of x's shape, what the quantized model computes with."""
        return self.dequantize(self.quantize(x, axis=axis))

    def _check_shapes(self, tensor: BlockTensor) -> None:
        axis, size = tensor.axis, tensor.size
        outer = [d for i, d in enumerate(tensor.codes.shape) if i != axis]
        codes_shape = [*outer[:axis], packed_size(size, self.element.bits), *outer[axis:]]
        scales_shape = [*outer[:axis], self.scale_groups(size), *outer[axis:], self.scales_per_block]
        if list(tensor.codes.shape) != codes_shape or list(tensor.scales.shape) != scales_shape:
            raise FormatError(
                f"{self.name}: codes {list(tensor.codes.shape)} and scales {list(tensor.scales.shape)} do not fit "
                f"{size} elements along axis {axis}: expected {codes_shape} and {scales_shape}"
            )


@dataclasses.dataclass(frozen=True)
class BlockFormat(Format):
    """A format whose blocks know nothing of each other."""

    @property
    def grows(self) -> bool:
        """See `Format.grows`; a row that is one block is never complete."""
        return self.block_size > 0

    @property
    def padding(self) -> Padding:
        """What fills the last block; it must change neither scales nor codes."""
        return "constant"

    @abc.abstractmethod
    def encode_blocks(self, blocks: Float32) -> tuple[Uint8, Uint8]:
        """Codes uint8 ``[..., block]``, one an element, and scales uint8 ``[..., s]`` of float32 ``[..., block]``."""

    @abc.abstractmethod
    def decode_blocks(self, codes: Uint8, scales: Uint8) -> Float32:
        """The inverse of `encode_blocks`: float32 ``[..., block]``."""

    @abc.abstractmethod
    def block_units(self, blocks: Float32, scales: Uint8) -> Float32:
        """See `Format.row_units`: float32 ``[..., block]`` over their scales ``[..., s]``."""

    @abc.abstractmethod
    def block_code_units(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `Format.code_units`: float32 ``[..., block]``."""

    @abc.abstractmethod
    def emit_encode(self, op: "GraphWriter", blocks: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """Writes `encode_blocks` as operators; codes and scales come as float32 tensors of whole numbers."""

    @abc.abstractmethod
    def emit_decode(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """Writes `decode_blocks` as operators, from int32 tensors of codes and scales."""

    def encode_rows(self, rows: Float32) -> tuple[Uint8, Uint8]:
        """See `Format.encode_rows`."""
        codes, scales = self.encode_blocks(to_blocks(rows, self.block_size, self.padding))
        return from_blocks(codes, rows.shape[-1]), scales

    def decode_rows(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `Format.decode_rows`."""
        return from_blocks(self.decode_blocks(to_blocks(codes, self.block_size), scales), codes.shape[-1])

    def row_units(self, rows: Float32, scales: Uint8) -> Float32:
        """See `Format.row_units`."""
        return from_blocks(self.block_units(to_blocks(rows, self.block_size, self.padding), scales), rows.shape[-1])

    def code_units(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `Format.code_units`."""
        return from_blocks(self.block_code_units(to_blocks(codes, self.block_size), scales), codes.shape[-1])

    def emit_encode_rows(self, op: "GraphWriter", rows: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """See `Format.emit_encode_rows`."""
        codes, scales = self.emit_encode(op, emit_blocks(op, rows, self.block_size, self.padding))
        return emit_rows(op, codes), scales

    def emit_decode_rows(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """See `Format.emit_decode_rows`."""
        return emit_rows(op, self.emit_decode(op, emit_blocks(op, codes, self.block_size), scales))


def split_finite(blocks: Float32) -> tuple[npt.NDArray[np.bool_], Float32]:
    """Which blocks are finite throughout, bool ``[..., 1]``, and the blocks with the others set to zero.

    Source: this project (interface: NaN or Inf anywhere makes the whole block NaN).
    """
    finite = np.logical_and.reduce(np.isfinite(blocks), axis=-1, keepdims=True)
    return finite, np.where(finite, blocks, np.float32(0))


def parse_name(formats: Mapping[str, Format], name: str) -> Format:
    """The format of a name with an optional block size, such as ``amxfp4`` or ``amxfp4_b16``.

    Raises:
        FormatError: Unknown name, or a block size that the format cannot have.
    """
    if name in formats:
        return formats[name]
    base, _, suffix = name.rpartition("_b")
    if base not in formats or not suffix.isdecimal():
        raise FormatError(
            f"unknown format {name!r}: known are {', '.join(formats)} (block size: {next(iter(formats))}_b16)"
        )
    sizes = formats[base].block_sizes
    if int(suffix) not in sizes or suffix != str(int(suffix)) or suffix == "0":
        allowed = ", ".join(str(size) if size else "whole rows" for size in sizes)
        raise FormatError(f"format {name!r}: block size {suffix} is not possible, {base} has {allowed}")
    if int(suffix) == formats[base].block_size:
        return formats[base]
    return dataclasses.replace(formats[base], name=name, block_size=int(suffix))


def _normalize_axis(axis: int, rank: int, where: str) -> int:
    if not -rank <= axis < rank:
        raise FormatError(f"{where}: axis {axis} is out of range for a tensor of rank {rank}")
    return axis % rank


def to_blocks(rows: npt.NDArray[Any], block_size: int, padding: Padding = "constant") -> npt.NDArray[Any]:
    """``[..., k]`` -> ``[..., ceil(k / block), block]``; a block size of 0 makes each row one block."""
    block_size = block_size or max(rows.shape[-1], 1)
    blocks = -(-rows.shape[-1] // block_size)
    missing = blocks * block_size - rows.shape[-1]
    if missing:
        rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)], mode=padding)
    return rows.reshape(*rows.shape[:-1], blocks, block_size)


def from_blocks(blocks: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The inverse of `to_blocks`: ``[..., blocks, block]`` -> ``[..., size]``."""
    return blocks.reshape(*blocks.shape[:-2], blocks.shape[-2] * blocks.shape[-1])[..., :size]


def emit_blocks(op: "GraphWriter", rows: "ir.Value", block_size: int, padding: Padding = "constant") -> "ir.Value":
    """Writes `to_blocks` as operators: ``[a, b, k]`` -> ``[a, b, blocks, block]``."""
    if not block_size:
        return op.op("Unsqueeze", [rows, op.vector([2])])
    size, block = op.Shape(rows, start=2), op.vector([block_size])
    blocks = op.Div(op.Add(size, op.vector([block_size - 1])), block)
    missing = op.Sub(op.Mul(blocks, block), size)
    rows = op.Pad(rows, op.Concat(op.vector([0] * 5), missing, axis=0), mode=padding)
    return op.op("Reshape", [rows, op.Concat(op.vector([0, 0, -1]), block, axis=0)])


def emit_rows(op: "GraphWriter", blocks: "ir.Value") -> "ir.Value":
    """Writes `from_blocks` as operators, without cutting: ``[a, b, blocks, block]`` -> ``[a, b, blocks * block]``."""
    return op.op("Reshape", [blocks, op.vector([0, 0, -1])])
