"""What surrounds the arithmetic of the custom ops: inferred shapes, errors, instruction sets, the library itself."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from op_models import CONSTANT_B, one_node_model, open_session, run_op

# Shape inference -----------------------------------------------------------------------------------------------------

X = np.zeros((2, 3, 70), np.float32)
CODES, SCALES = np.zeros((2, 3, 35), np.uint8), np.zeros((2, 3, 3, 2), np.uint8)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "shapes", "expected"),
    [
        ("QuantizeBlock", {"X": X}, {"format": "amxfp4"}, {"X": [2, 3, 70]}, [[2, 3, 35], [2, 3, 3, 2]]),
        ("QuantizeBlock", {"X": X}, {"format": "mxfp4_b16", "axis": 1}, {"X": [2, 3, 70]}, [[2, 2, 70], [2, 1, 70, 1]]),
        (
            "QuantizeBlock",
            {"X": X},
            {"format": "amxfp4", "axis": 1},
            {"X": ["b", "s", 70]},
            [["b", "ceil(s/2)", 70], ["b", "ceil(s/32)", 70, 2]],
        ),
        ("QuantizeBlock", {"X": X}, {"format": "mxfp6_e3m2"}, {"X": [2, "s", 70]}, [[2, "s", 53], [2, "s", 3, 1]]),
        ("QuantizeBlock", {"X": X}, {"format": "int8"}, {"X": [2, 3, 70]}, [[2, 3, 70], [2, 3, 1, 5]]),
        ("QuantizeBlock", {"X": X}, {"format": "nvfp4"}, {"X": [2, 3, 70]}, [[2, 3, 35], [2, 3, 9, 1]]),
        (
            "QuantizeBlock",
            {"X": X},
            {"format": "mxfp6_e2m3_b64"},
            {"X": [2, 3, "s"]},
            [[2, 3, "ceil(3*s/4)"], [2, 3, "ceil(s/64)", 1]],
        ),
        (
            "QuantizeBlock",
            {"X": X},
            {"format": "dint3", "axis": 0},
            {"X": ["b", 3, 70]},
            [["ceil(3*b/8)", 3, 70], ["min(b,1)", 3, 70, 5]],
        ),
        ("QuantizeBlock", {"X": X}, {"format": "int8"}, {"X": [2, 3, "s"]}, [[2, 3, "s"], [2, 3, "min(s,1)", 5]]),
        (
            "QuantizeBlock",
            {"X": X},
            {"format": "nvfp4"},
            {"X": [2, 3, "s"]},
            [[2, 3, "ceil(s/2)"], [2, 3, "ceil(s/16)+4", 1]],
        ),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "mxfp6_e3m2"},
            {"codes": ["b", 3, "c"]},
            [["b", 3, "floor(4*c/3)"]],
        ),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "int8"},
            {"codes": ["b", 3, "c"]},
            [["b", 3, "c"]],
        ),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "amxfp4", "size": 69},
            {"codes": ["b", 3, 35]},
            [["b", 3, 69]],
        ),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "amxfp4", "axis": 0},
            {"codes": ["b", 3, 35]},
            [["2*b", 3, 35]],
        ),
        (
            "MatMulBlock",
            {"A": X, "B_codes": CODES, "B_scales": SCALES},
            {"a_format": "amxfp4", "b_format": "amxfp4", "k": 70},
            {"A": ["b", "s", 70], "B_codes": ["b", "t", 35]},
            [["b", "s", "t"]],
        ),
        (
            "MatMulBlock",
            {"A": X, "B_codes": CODES[0], "B_scales": SCALES[0]},
            {"a_format": "none", "b_format": "amxfp4", "k": 70},
            {"A": ["b", "s", 70], "B_codes": [3, 35]},
            [["b", "s", 3]],
        ),
        (
            "MatMulBlock",
            {"A": X, "B_codes": CODES, "B_scales": SCALES},
            {"a_format": "amxfp4", "b_format": "amxfp4", "k": 70},
            {"A": [5, 1, "s", 70], "B_codes": ["b", 3, 35]},
            [[5, "b", "s", 3]],
        ),
    ],
)
def test_output_shapes_are_inferred(op_type, inputs, attributes, shapes, expected):
    session = open_session(one_node_model(op_type, inputs, attributes, shapes=shapes))
    assert [output.shape for output in session.get_outputs()] == expected


def test_unknown_dimensions_get_names_that_no_other_has():
    session = open_session(one_node_model("QuantizeBlock", {"X": X}, {"format": "amxfp4"}))
    names = [dim for output in session.get_outputs() for dim in output.shape]
    assert names.pop() == 2
    assert all(isinstance(name, str) for name in names)
    assert len(set(names)) == len(names) == 6


# Errors --------------------------------------------------------------------------------------------------------------

A, B_CODES, B_SCALES = np.zeros((4, 64), np.float32), np.zeros((8, 32), np.uint8), np.zeros((8, 2, 2), np.uint8)
MATMUL_INPUTS = {"A": A, "B_codes": B_CODES, "B_scales": B_SCALES}
MATMUL = {"a_format": "amxfp4", "b_format": "amxfp4", "k": 64}


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "facts"),
    [
        ("QuantizeBlock", {"X": A}, {"format": "fp4"}, ["format", "'fp4'", "amxfp4, amxfp4_pot", "_b16"]),
        (
            "QuantizeBlock",
            {"X": A},
            {"format": "amxfp4_b24"},
            ["'amxfp4_b24'", "block size 24", "amxfp4 has 16, 32, 64"],
        ),
        ("QuantizeBlock", {"X": A}, {"format": "none"}, ["'none'", "amxfp4, amxfp4_pot"]),
        ("QuantizeBlock", {"X": A}, {"format": "nvfp4_b32"}, ["'nvfp4_b32'", "block size 32", "nvfp4 has 16"]),
        ("QuantizeBlock", {"X": A}, {"format": "int8_b16"}, ["'int8_b16'", "int8 has 0, 32, 64, 128"]),
        ("QuantizeBlock", {"X": A}, {}, ["attribute format", "string"]),
        ("QuantizeBlock", {"X": A}, {"format": 4}, ["attribute format", "string"]),
        ("QuantizeBlock", {"X": A}, {"format": "amxfp4", "axis": 1.0}, ["attribute axis", "integer", "another type"]),
        ("DequantizeBlock", {"codes": CODES, "scales": SCALES}, {"format": "amxfp4", "size": -1}, ["size is -1"]),
        ("MatMulBlock", MATMUL_INPUTS, MATMUL | {"b_format": "none"}, ["b_format", "'none'"]),
        ("MatMulBlock", MATMUL_INPUTS, MATMUL | {"a_format": "fp8"}, ["a_format", "'fp8'"]),
        ("MatMulBlock", MATMUL_INPUTS, {"a_format": "none", "b_format": "amxfp4"}, ["attribute k", "integer"]),
        ("MatMulBlock", MATMUL_INPUTS, MATMUL | {"k": -2}, ["k is -2"]),
    ],
)
def test_bad_attributes_are_errors_at_session_creation(op_type, inputs, attributes, facts):
    model = one_node_model(op_type, inputs, attributes)
    with pytest.raises(Exception, match=op_type) as error:
        open_session(model)
    for fact in [f"{op_type} 'the-node'", *facts]:
        assert fact in str(error.value)


def test_constant_weights_of_the_wrong_shape_are_an_error_at_session_creation():
    model = one_node_model("MatMulBlock", MATMUL_INPUTS, MATMUL | {"k": 66}, CONSTANT_B)
    with pytest.raises(Exception, match=r"B_codes of shape \[8, 32\] do not hold rows of k = 66"):
        open_session(model)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "facts"),
    [
        ("QuantizeBlock", {"X": A}, {"format": "amxfp4", "axis": 2}, ["axis 2", "[4, 64]", "-rank"]),
        ("QuantizeBlock", {"X": A}, {"format": "amxfp4", "axis": -3}, ["axis -3", "[4, 64]"]),
        ("QuantizeBlock", {"X": np.zeros((), np.float32)}, {"format": "amxfp4"}, ["axis -1", "[]"]),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "amxfp4", "size": 72},
            ["size 72", "[2, 3, 35]", "69 or 70"],
        ),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "dint3", "size": 72},
            ["size 72", "[2, 3, 35]", "91 to 93"],
        ),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "int8", "size": 72},
            ["size 72", "[2, 3, 35]", "allowed is 35"],
        ),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "mxfp4"},
            ["[2, 3, 35]", "[2, 3, 3, 2]", "[2, 3, 3, 1]"],
        ),
        (
            "DequantizeBlock",
            {"codes": CODES, "scales": SCALES},
            {"format": "amxfp4", "axis": 3},
            ["axis 3", "[2, 3, 35]"],
        ),
        ("MatMulBlock", MATMUL_INPUTS | {"A": A[:, :63]}, MATMUL, ["A of shape [4, 63]", "k = 64", "[..., m, 64]"]),
        ("MatMulBlock", MATMUL_INPUTS | {"A": np.zeros((), np.float32)}, MATMUL, ["A of shape []", "k = 64"]),
        ("MatMulBlock", MATMUL_INPUTS | {"A": np.zeros((), np.float32)}, MATMUL | {"k": 0}, ["A of shape []", "in k;"]),
        ("MatMulBlock", MATMUL_INPUTS | {"A": A[:, :62]}, MATMUL | {"k": 0}, ["B_codes", "rows of k = 62"]),
        ("MatMulBlock", MATMUL_INPUTS | {"B_codes": B_CODES[0]}, MATMUL, ["B_codes of shape [32]", "[..., n, 32]"]),
        (
            "MatMulBlock",
            MATMUL_INPUTS | {"B_scales": B_SCALES[..., :1]},
            MATMUL,
            ["B_codes of shape [8, 32]", "B_scales of shape [8, 2, 1]", "[8, 2, 2]"],
        ),
        (
            "MatMulBlock",
            MATMUL_INPUTS | {"B_scales": B_SCALES[:7]},
            MATMUL,
            ["B_codes of shape [8, 32]", "B_scales of shape [7, 2, 2]"],
        ),
        ("MatMulBlock", MATMUL_INPUTS | {"bias": A[0, :7]}, MATMUL, ["bias of shape [7]", "8 rows", "[8]"]),
        (
            "MatMulBlock",
            {
                "A": np.zeros((2, 4, 64), np.float32),
                "B_codes": np.zeros((3, 8, 32), np.uint8),
                "B_scales": np.zeros((3, 8, 2, 2), np.uint8),
            },
            MATMUL,
            ["[2, 4, 64]", "[3, 8, 32]", "broadcast"],
        ),
    ],
)
def test_bad_shapes_are_errors_of_the_run(op_type, inputs, attributes, facts):
    session = open_session(one_node_model(op_type, inputs, attributes))
    with pytest.raises(Exception, match=op_type) as error:
        session.run(None, inputs)
    for fact in [f"{op_type} 'the-node'", *facts]:
        assert fact in str(error.value)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("QuantizeBlock", {"X": A.astype(np.float64)}, {"format": "amxfp4"}),
        ("DequantizeBlock", {"codes": A, "scales": B_SCALES}, {"format": "amxfp4"}),
        ("MatMulBlock", MATMUL_INPUTS | {"B_codes": B_CODES.astype(np.int8)}, MATMUL),
        ("MatMulBlock", MATMUL_INPUTS | {"A": A.astype(np.float16), "bias": A[0, :8]}, MATMUL),
    ],
)
def test_other_types_are_refused_at_session_creation(op_type, inputs, attributes):
    model = one_node_model(op_type, inputs, attributes)
    with pytest.raises(Exception, match=op_type):
        open_session(model)


# The library ---------------------------------------------------------------------------------------------------------

PROBE = """
import sys
import numpy as np
from op_models import dequantize, matmul, quantize, run_op
from mxcompile.formats import FORMATS

rng = np.random.default_rng(3)
x = (rng.standard_normal((70, 300)) * np.exp2(rng.integers(-20, 20, (70, 300)))).astype(np.float32)
results = {"isa": run_op("LibraryInfo", {}, {})[1].astype(str)}
for name in [*FORMATS, "mxfp4_b16", "int4_b64"]:
    packed = quantize(x, name)
    results |= {f"{name}_codes": packed.codes, f"{name}_scales": packed.scales, f"{name}_x": dequantize(packed, name)}
    results |= {f"{name}_y{m}": matmul(x[:m], packed, name, name, bias=x[0, :70]) for m in (1, 5, 70)}
    results[f"int8_{name}"] = matmul(x, packed, "int8", name)
np.savez(sys.argv[1], **results)
"""


def run_probe(isa: str | None, output: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MXCOMPILE_ISA"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    if isa is not None:
        environment["MXCOMPILE_ISA"] = isa
    command = [sys.executable, "-c", PROBE, str(output)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_scalar_kernels_give_the_bits_of_the_best(tmp_path):
    for isa, file in ((None, "best.npz"), ("scalar", "scalar.npz")):
        done = run_probe(isa, tmp_path / file)
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "best.npz") as best, np.load(tmp_path / "scalar.npz") as scalar:
        assert scalar["isa"] == "scalar"
        for key in set(best.files) - {"isa"}:
            np.testing.assert_array_equal(best[key], scalar[key])


def test_an_unknown_isa_is_an_error_that_lists_the_available_ones(tmp_path):
    done = run_probe("avx1024", tmp_path / "none.npz")
    assert done.returncode != 0
    assert "MXCOMPILE_ISA is 'avx1024'" in done.stderr
    assert "available on this machine: scalar" in done.stderr


def test_library_info_gives_version_and_isa():
    version, isa = (array.item() for array in run_op("LibraryInfo", {}, {}))
    assert all(part.isdecimal() for part in version.split(".")[:2])
    assert isa in {"scalar", "avx2", "avx512", "avx512vnni", "avx512bf16"}


def test_many_sessions_share_one_library():
    model = one_node_model("QuantizeBlock", {"X": A}, {"format": "amxfp4"})
    sessions = [open_session(model) for _ in range(20)]
    for session in sessions:
        assert isinstance(session, ort.InferenceSession)
        assert session.run(None, {"X": A})[0].shape == (4, 32)
