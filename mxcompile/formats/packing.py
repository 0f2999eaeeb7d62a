"""Nibble order and byte layout of packed codes: the only place that knows them."""

import numpy as np
import numpy.typing as npt


def packed_size(size: int, bits: int = 4) -> int:
    """Bytes that ``size`` codes of ``bits`` bits take along the blocked axis."""
    return -(-size * bits // 8)


def pack_nibbles(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Packs 4-bit codes two a byte along the last axis, low nibble first; a ragged tail nibble is 0.

    Args:
        codes: uint8 ``[..., k]``, each below 16.

    Returns:
        uint8 ``[..., ceil(k / 2)]``.

    Source: ONNX IR specification, INT4/UINT4/FLOAT4E2M1 packing.
    """
    packed = codes[..., 0::2].copy()
    high = codes[..., 1::2]
    packed[..., : high.shape[-1]] |= high << 4
    return packed


def unpack_nibbles(packed: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """The inverse of `pack_nibbles`.

    Args:
        packed: uint8 ``[..., ceil(size / 2)]``.
        size: Number of codes along the last axis.

    Returns:
        uint8 ``[..., size]``.
    """
    codes = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), np.uint8)
    codes[..., 0::2] = packed & 0x0F
    codes[..., 1::2] = packed >> 4
    return codes[..., :size]
