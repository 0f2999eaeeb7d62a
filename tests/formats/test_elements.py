"""Elements against literal tables, and against independent witnesses: ml_dtypes, and onnxruntime's Cast."""

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mxcompile.formats.elements import E2M1, E4M3, E5M2, E8M0_NAN, Element, Rounding, e8m0_decode_table

WITNESSES = [(E2M1, ml_dtypes.float4_e2m1fn), (E4M3, ml_dtypes.float8_e4m3fn), (E5M2, ml_dtypes.float8_e5m2)]
elements = pytest.mark.parametrize(("element", "witness"), WITNESSES, ids=lambda each: getattr(each, "name", ""))


def test_e2m1_decodes_to_the_values_of_the_specification():
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert E2M1.decode_table.tolist() == positive + [-value for value in positive]


@elements
def test_every_code_decodes_as_in_ml_dtypes(element: Element, witness: type):
    codes = np.arange(2**element.bits, dtype=np.uint8)
    np.testing.assert_array_equal(element.decode_table, codes.view(witness).astype(np.float32))
    assert np.signbit(element.decode_table[element.sign_bit])  # -0


def test_every_e8m0_byte_decodes_as_in_ml_dtypes():
    witness = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    table = e8m0_decode_table()
    np.testing.assert_array_equal(table, witness)
    assert table[0] == 2.0**-127
    assert np.isnan(table[E8M0_NAN])


@elements
def test_every_value_encodes_to_its_own_code(element: Element, witness: type):
    for rounding in Rounding:
        codes = element.encode(np.array(element.values, np.float32), rounding)
        assert codes.tolist() == list(range(len(element.values)))


@elements
def test_every_midpoint_goes_away_from_zero_or_to_the_even_code(element: Element, witness: type):
    values = np.array(element.values, np.float64)
    midpoints = ((values[:-1] + values[1:]) / 2).astype(np.float32)
    lower = np.arange(len(midpoints))
    assert element.encode(midpoints).tolist() == (lower + 1).tolist()
    assert element.encode(midpoints, Rounding.TIES_TO_EVEN).tolist() == (lower + lower % 2).tolist()
    for rounding in Rounding:
        assert element.encode(np.nextafter(midpoints, np.float32(0)), rounding).tolist() == lower.tolist()
        above = np.nextafter(midpoints, np.float32(np.inf))
        assert element.encode(above, rounding).tolist() == (lower + 1).tolist()


@elements
def test_ties_to_even_is_the_cast_of_ml_dtypes(element: Element, witness: type):
    rng = np.random.default_rng(0)
    exponents = rng.uniform(np.log2(element.values[1]) - 2, np.log2(element.maximum), 100_000)
    magnitudes = np.exp2(exponents).astype(np.float32)
    expected = magnitudes.astype(witness).view(np.uint8)
    np.testing.assert_array_equal(element.encode(magnitudes, Rounding.TIES_TO_EVEN), expected)


@pytest.mark.parametrize(("element", "code"), [(E4M3, TensorProto.FLOAT8E4M3FN), (E5M2, TensorProto.FLOAT8E5M2)])
def test_ties_to_even_is_the_cast_of_onnxruntime(element: Element, code: int):
    nodes = [
        helper.make_node("Cast", ["x"], ["narrow"], to=code, saturate=1),
        helper.make_node("Cast", ["narrow"], ["y"], to=TensorProto.FLOAT),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "casts", [x], [y]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it removes pairs of casts
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = np.array(element.values, np.float64)
    midpoints = ((values[:-1] + values[1:]) / 2).astype(np.float32)
    exponents = np.random.default_rng(0).uniform(np.log2(element.values[1]) - 2, np.log2(element.maximum) + 3, 100_000)
    magnitudes = np.concatenate([midpoints, np.exp2(exponents).astype(np.float32)])
    (cast,) = session.run(None, {"x": magnitudes})
    ours = element.decode_table[element.encode(magnitudes, Rounding.TIES_TO_EVEN)]
    np.testing.assert_array_equal(ours, cast)


@elements
def test_magnitudes_above_the_largest_value_saturate(element: Element, witness: type):
    huge = np.array([element.maximum, np.float32(element.maximum) * 2, np.finfo(np.float32).max], np.float32)
    assert element.encode(huge).tolist() == [len(element.values) - 1] * 3


def test_e5m2_underflows_below_half_of_its_smallest_subnormal():
    half = np.float32(2.0**-17)
    assert E5M2.encode(np.array([half, np.nextafter(half, np.float32(0)), 1e-45], np.float32)).tolist() == [1, 0, 0]
