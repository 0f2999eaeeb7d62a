"""Nibble order and ragged tails."""

import ml_dtypes
import numpy as np
import pytest

from mxcompile.formats.packing import pack_nibbles, packed_size, unpack_nibbles


def test_the_low_nibble_comes_first():
    assert pack_nibbles(np.array([1, 2, 3, 4], np.uint8)).tolist() == [0x21, 0x43]


def test_a_ragged_tail_nibble_is_zero():
    assert pack_nibbles(np.array([15, 15, 15], np.uint8)).tolist() == [0xFF, 0x0F]


def test_the_order_is_that_of_onnx():
    from onnx import TensorProto, helper, numpy_helper

    codes = np.arange(16, dtype=np.uint8)
    tensor = helper.make_tensor("x", TensorProto.FLOAT4E2M1, [16], pack_nibbles(codes).tobytes(), raw=True)
    values = codes.view(ml_dtypes.float4_e2m1fn)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float32), values.astype(np.float32))


@pytest.mark.parametrize("size", [0, 1, 2, 7, 32, 33])
def test_unpacking_is_the_inverse_at_every_size(size: int):
    codes = np.random.default_rng(size).integers(0, 16, (3, size), np.uint8)
    packed = pack_nibbles(codes)
    assert packed.shape == (3, packed_size(size))
    np.testing.assert_array_equal(unpack_nibbles(packed, size), codes)


def test_packing_leaves_its_input_alone():
    codes = np.array([1, 2, 3], np.uint8)
    pack_nibbles(codes)
    assert codes.tolist() == [1, 2, 3]
