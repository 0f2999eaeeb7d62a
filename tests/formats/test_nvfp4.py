"""NVFP4 against a computation with the casts of ml_dtypes, and its edges."""

import ml_dtypes
import numpy as np
import pytest

from mxcompile.formats import get_format

NVFP4 = get_format("nvfp4")


def witness(x: np.ndarray) -> np.ndarray:
    """The recipe with independent casts (ml_dtypes rounds ties to even), for K in whole blocks."""
    blocks = x.reshape(*x.shape[:-1], -1, 16)
    s_t = np.float32(np.abs(x).max()) / np.float32(448 * 6)
    s_b = np.abs(blocks).max(-1, keepdims=True) / np.float32(6) / s_t
    s_b = np.clip(s_b, 2.0**-6, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    q = np.clip(blocks / (s_t * s_b), -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return (q * (s_t * s_b)).reshape(x.shape)


@pytest.mark.parametrize("spread", [0.01, 1, 30])
def test_values_equal_the_recipe_with_independent_casts(spread: float):
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    x *= np.exp(np.random.default_rng(1).standard_normal((64, 1)) * spread / 3).astype(np.float32)
    np.testing.assert_array_equal(NVFP4.fake_quantize(x), witness(x))


def test_the_tensor_scale_stands_first_in_every_row():
    packed = NVFP4.quantize(np.full((3, 40), 2688, np.float32))
    assert packed.scales.shape == (3, 4 + 3, 1)
    np.testing.assert_array_equal(packed.scales[:, :4, 0], np.tile(np.frombuffer(np.float32(1), np.uint8), (3, 1)))


def test_pieces_of_a_tensor_are_quantized_as_the_whole():
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    amax = float(np.abs(x).max())
    pieces = [NVFP4.for_tensor(amax).quantize(piece) for piece in np.split(x, 4)]
    whole = NVFP4.quantize(x)
    np.testing.assert_array_equal(np.concatenate([piece.codes for piece in pieces]), whole.codes)
    np.testing.assert_array_equal(np.concatenate([piece.scales for piece in pieces]), whole.scales)


def test_a_tensor_of_zeros_has_tensor_scale_one():
    packed = NVFP4.quantize(np.zeros(16, np.float32))
    assert packed.scales[:4, 0].view("<f4").item() == 1
    assert (NVFP4.dequantize(packed) == 0).all()


def test_small_blocks_have_the_smallest_scale():
    x = np.array([448 * 6] + [0] * 15 + [1e-6] * 16, np.float32)
    assert NVFP4.quantize(x).scales[-1].item() == np.float32(2.0**-6).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
