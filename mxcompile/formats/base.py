"""What every block format has: the protocol, the packed tensor, and the way from a tensor to blocks and back."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from mxcompile.errors import FormatError
from mxcompile.formats.elements import Element
from mxcompile.formats.packing import pack_nibbles, packed_size, unpack_nibbles

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class BlockTensor:
    """A tensor in packed form: what QuantizeBlock gives and DequantizeBlock takes.

    Attributes:
        codes: uint8; the tensor's shape with the blocked axis replaced by ``ceil(k / 2)`` bytes.
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
    """A 4-bit block format: elements that share scales along one axis.

    A subclass defines a block four times, side by side in one file: `encode_blocks` and `decode_blocks` in NumPy are
    the definition; `emit_encode` and `emit_decode` write the same computation as ONNX operators, which becomes the
    body of the custom ops for an onnxruntime without our library.

    Attributes:
        name: The format's name in the CLI, in op attributes and in metadata, such as ``amxfp4`` or ``amxfp4_b16``.
        block_size: Elements that share scales.
    """

    element: ClassVar[Element]
    scale_type: ClassVar[str]
    scales_per_block: ClassVar[int]
    block_sizes: ClassVar[tuple[int, ...]] = (16, 32, 64)
    description: ClassVar[str]

    name: str
    block_size: int = 32

    @property
    def bits_per_element(self) -> float:
        """Stored bits per element of a long row, scales included."""
        return self.element.bits + 8 * self.scales_per_block / self.block_size

    @abc.abstractmethod
    def encode_blocks(self, blocks: Float32) -> tuple[Uint8, Uint8]:
        """Codes uint8 ``[..., block]``, one an element, and scales uint8 ``[..., s]`` of float32 ``[..., block]``.

        A shorter last block arrives padded with zeros, which change neither scales nor codes.
        """

    @abc.abstractmethod
    def decode_blocks(self, codes: Uint8, scales: Uint8) -> Float32:
        """The inverse of `encode_blocks`: float32 ``[..., block]``, exact."""

    @abc.abstractmethod
    def emit_encode(self, op: "GraphWriter", blocks: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """Writes `encode_blocks` as operators; codes and scales come as float32 tensors of whole numbers."""

    @abc.abstractmethod
    def emit_decode(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """Writes `decode_blocks` as operators, from int32 tensors of codes and scales."""

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
        codes, scales = self.encode_blocks(_to_blocks(rows, self.block_size))
        size = rows.shape[-1]
        codes = codes.reshape(*rows.shape[:-1], codes.shape[-2] * self.block_size)[..., :size]
        return BlockTensor(
            codes=np.ascontiguousarray(np.moveaxis(pack_nibbles(codes), -1, axis)),
            scales=np.ascontiguousarray(np.moveaxis(scales, -2, axis)),
            size=size,
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
        blocks = _to_blocks(unpack_nibbles(packed, tensor.size), self.block_size)
        rows = self.decode_blocks(blocks, scales)
        rows = rows.reshape(*packed.shape[:-1], rows.shape[-2] * self.block_size)[..., : tensor.size]
        return np.ascontiguousarray(np.moveaxis(rows, -1, tensor.axis))

    def fake_quantize(self, x: npt.ArrayLike, *, axis: int = -1) -> Float32:
        """``dequantize(quantize(x))``: float32 of x's shape, what the quantized model computes with."""
        return self.dequantize(self.quantize(x, axis=axis))

    def _check_shapes(self, tensor: BlockTensor) -> None:
        axis, size = tensor.axis, tensor.size
        outer = [d for i, d in enumerate(tensor.codes.shape) if i != axis]
        codes_shape = [*outer[:axis], packed_size(size), *outer[axis:]]
        blocks = -(-size // self.block_size)
        scales_shape = [*outer[:axis], blocks, *outer[axis:], self.scales_per_block]
        if list(tensor.codes.shape) != codes_shape or list(tensor.scales.shape) != scales_shape:
            raise FormatError(
                f"{self.name}: codes {list(tensor.codes.shape)} and scales {list(tensor.scales.shape)} do not fit "
                f"{size} elements along axis {axis}: expected {codes_shape} and {scales_shape}"
            )


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
    if int(suffix) not in sizes or suffix != str(int(suffix)):
        allowed = ", ".join(map(str, sizes))
        raise FormatError(f"format {name!r}: block size {suffix} is not possible, {base} has {allowed}")
    if int(suffix) == formats[base].block_size:
        return formats[base]
    return dataclasses.replace(formats[base], name=name, block_size=int(suffix))


def _normalize_axis(axis: int, rank: int, where: str) -> int:
    if not -rank <= axis < rank:
        raise FormatError(f"{where}: axis {axis} is out of range for a tensor of rank {rank}")
    return axis % rank


def _to_blocks(rows: npt.NDArray[Any], block_size: int) -> npt.NDArray[Any]:
    """``[..., k]`` -> ``[..., ceil(k / block), block]``, the last block padded with zeros."""
    size = rows.shape[-1]
    blocks = -(-size // block_size)
    padding = blocks * block_size - size
    if padding:
        rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, padding)])
    return rows.reshape(*rows.shape[:-1], blocks, block_size)
