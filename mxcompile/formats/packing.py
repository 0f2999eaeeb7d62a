"""Nibble order and byte layout of packed codes: the only place that knows them."""

import math

import numpy as np
import numpy.typing as npt


def packed_size(size: int, bits: int) -> int:
    """Bytes that ``size`` codes of ``bits`` bits take along the blocked axis."""
    return -(-size * bits // 8)


def pack_codes(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Packs codes along the last axis without gaps, the first code in the lowest bits; unused bits at the end are 0.

    So 4-bit codes come two a byte, low nibble first, and four 6-bit codes in three bytes.

    Args:
        codes: uint8 ``[..., k]``, each below ``2**bits``.
        bits: 3, 4, 6 or 8.

    Returns:
        uint8 ``[..., ceil(k * bits / 8)]``.

    Source: ONNX IR specification for 4 bits (INT4/UINT4/FLOAT4E2M1); this project for 6 bits, in the same order.
    """
    count, size = code_group(bits)
    groups = -(-codes.shape[-1] // count)
    padding = [(0, 0)] * (codes.ndim - 1) + [(0, groups * count - codes.shape[-1])]
    words = np.pad(codes, padding).reshape(*codes.shape[:-1], groups, count).astype(np.uint32)
    word = (words << np.arange(0, bits * count, bits, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32)
    packed: npt.NDArray[np.uint8] = (word[..., None] >> np.arange(0, 8 * size, 8, dtype=np.uint32)).astype(np.uint8)
    return packed.reshape(*codes.shape[:-1], groups * size)[..., : packed_size(codes.shape[-1], bits)]


def unpack_codes(packed: npt.NDArray[np.uint8], size: int, bits: int) -> npt.NDArray[np.uint8]:
    """The inverse of `pack_codes`.

    Args:
        packed: uint8 ``[..., ceil(size * bits / 8)]``.
        size: Number of codes along the last axis.
        bits: 3, 4, 6 or 8.

    Returns:
        uint8 ``[..., size]``.
    """
    count, bytes_ = code_group(bits)
    groups = -(-packed.shape[-1] // bytes_)
    padding = [(0, 0)] * (packed.ndim - 1) + [(0, groups * bytes_ - packed.shape[-1])]
    parts = np.pad(packed, padding).reshape(*packed.shape[:-1], groups, bytes_).astype(np.uint32)
    word = (parts << np.arange(0, 8 * bytes_, 8, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32)
    fields = (word[..., None] >> np.arange(0, bits * count, bits, dtype=np.uint32)) & (2**bits - 1)
    codes: npt.NDArray[np.uint8] = fields.astype(np.uint8)
    return codes.reshape(*packed.shape[:-1], groups * count)[..., :size]


def code_group(bits: int) -> tuple[int, int]:
    """The smallest number of codes of ``bits`` bits that fill whole bytes, and the number of those bytes."""
    size = math.lcm(bits, 8) // 8
    return 8 * size // bits, size
