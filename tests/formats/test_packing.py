"""Nibble order and ragged tails."""

import ml_dtypes
import numpy as np
import pytest

from mxcompile.formats.packing import pack_codes, packed_size, unpack_codes


def test_the_low_nibble_comes_first():
    assert pack_codes(np.array([1, 2, 3, 4], np.uint8), 4).tolist() == [0x21, 0x43]


def test_a_ragged_tail_nibble_is_zero():
    assert pack_codes(np.array([15, 15, 15], np.uint8), 4).tolist() == [0xFF, 0x0F]


def test_the_order_is_that_of_onnx():
    from onnx import TensorProto, helper, numpy_helper

    codes = np.arange(16, dtype=np.uint8)
    tensor = helper.make_tensor("x", TensorProto.FLOAT4E2M1, [16], pack_codes(codes, 4).tobytes(), raw=True)
    values = codes.view(ml_dtypes.float4_e2m1fn)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float32), values.astype(np.float32))


@pytest.mark.parametrize(
    ("bits", "codes", "packed"),
    [
        (3, [1, 2, 3, 4, 5, 6, 7, 0], [0b11_010_001, 0b0_101_100_0, 0b000_111_11]),
        (6, [1, 2, 3, 4], [0b10_000001, 0b0011_0000, 0b000100_00]),
        (8, [1, 255], [1, 255]),
    ],
)
def test_other_widths_leave_no_gaps_and_begin_in_the_lowest_bits(bits: int, codes: list[int], packed: list[int]):
    assert pack_codes(np.array(codes, np.uint8), bits).tolist() == packed


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 32, 33])
def test_unpacking_is_the_inverse_at_every_size(size: int, bits: int):
    codes = np.random.default_rng(size).integers(0, 2**bits, (3, size), np.uint8)
    packed = pack_codes(codes, bits)
    assert packed.shape == (3, packed_size(size, bits))
    np.testing.assert_array_equal(unpack_codes(packed, size, bits), codes)


def test_packing_leaves_its_input_alone():
    codes = np.array([1, 2, 3], np.uint8)
    pack_codes(codes, 4)
    assert codes.tolist() == [1, 2, 3]
