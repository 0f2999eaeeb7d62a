"""Switchable products: every choice is, bit for bit, the model that the compiler makes of it."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from onnxruntime import InferenceSession

from mxcompile import exporter, onnx_file, runtime
from mxcompile.compiler import compile_model
from mxcompile.config import CompileConfig
from mxcompile.errors import ConfigError, UnsupportedModelError
from mxcompile.evaluation.switches import MEASURE, POWERS, SWITCHES, Switch, switchable
from mxcompile.kv_cache import empty_cache

Arrays = dict[str, npt.NDArray[Any]]
Outputs = Callable[[Sequence[bool] | npt.NDArray[np.bool_]], Arrays]

NAMES = ("llama", "gpt2", "bert", "vit")
"""Grouped heads and rotary angles; Gemms with biases; scaling behind the product; pixels."""

TOKENS = 40


def feeds(session: InferenceSession) -> Arrays:
    """Random inputs of a model, without those of the switches."""
    rng = np.random.default_rng(0)
    shape = (1, TOKENS)
    known = {
        "input_ids": rng.integers(3, 90, shape),
        "attention_mask": np.ones(shape, np.int64),
        "position_ids": np.arange(TOKENS)[np.newaxis],
        "token_type_ids": np.zeros(shape, np.int64),
        "pixel_values": rng.standard_normal((1, 3, 32, 32)).astype(np.float32),
    }
    names = {value.name for value in session.get_inputs()}
    return {name: array for name, array in known.items() if name in names} | empty_cache(session.get_inputs())


def outputs(session: InferenceSession, **switches: Any) -> Arrays:
    """Every output of the model."""
    names = [value.name for value in session.get_outputs() if value.name != POWERS]
    return dict(zip(names, session.run(names, feeds(session) | switches), strict=True))


def session_of(model: ir.Model) -> InferenceSession:
    return runtime.create_session(ir.to_proto(model).SerializeToString(), threads=1)


def switched(path: Path, config: CompileConfig, *, library: bool = True) -> tuple[Outputs, tuple[Switch, ...]]:
    """What a file gives for each choice, and its products."""
    with exporter.open_model(str(path)) as exported, tempfile.TemporaryDirectory() as folder:
        (model,) = exported.models.values()
        switches = switchable(model, config)
        onnx_file.write_model(model, Path(folder, "switched.onnx"))
        session = runtime.create_session(Path(folder, "switched.onnx"), threads=1, library=library)
    off = np.array(False)
    return lambda choice: outputs(session, **{SWITCHES: np.array(choice, np.bool_), MEASURE: off}), switches


def compiled(path: Path, output: Path, *, library: bool = True, **settings: Any) -> Arrays:
    compile_model(path, output=output, kv_cache="float", force=True, **settings)
    return outputs(runtime.create_session(output, threads=1, library=library))


def assert_same(found: Arrays, expected: Arrays) -> None:
    """Equal bit for bit, all outputs."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def assert_differs(found: Arrays, other: Arrays) -> None:
    name = next(iter(other))
    assert not np.array_equal(found[name], other[name])


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, exported_model_folder: Callable[[str], Path]) -> Path:
    return exported_model_folder(request.param) / "model.onnx"


def test_every_choice_is_the_model_compiled_so(model: Path, tmp_path: Path) -> None:
    run, switches = switched(model, CompileConfig.of("amxfp4"))
    count = len(switches)
    plain = outputs(runtime.create_session(model, threads=1))
    assert_same(run([False] * count), plain)
    everything = compiled(model, tmp_path / "all.onnx", format="amxfp4")
    assert_same(run([True] * count), everything)
    assert_differs(everything, plain)
    for index in range(0, count, 4):
        layer, single = switches[index].layer, np.arange(count) == index
        alone = compiled(model, tmp_path / "alone.onnx", format="amxfp4", include=[layer])
        others = compiled(model, tmp_path / "others.onnx", format="amxfp4", exclude=[layer])
        assert_same(run(single), alone)
        assert_same(run(~single), others)
        assert_differs(alone, plain)


def test_every_product_alone_changes_the_model(model: Path) -> None:
    run, switches = switched(model, CompileConfig.of("amxfp4"))
    plain = run([False] * len(switches))
    for single in np.eye(len(switches), dtype=np.bool_):
        assert_differs(run(single), plain)


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "dint4"},
        {"format": "mxfp4", "activations": "none"},
        {"format": "nvfp4", "attention_format": "mxfp8_e4m3", "kv_blocking": "token"},
        {"format": "mxfp4", "attention": False, "include": ("*",)},
        {"format": "amxfp4", "overrides": (("*q_proj", "mxint8", "none"), ("*qk", "none", "none"))},
        {"format": "amxfp4", "fuse": False},
    ],
    ids=str,
)
def test_settings_are_those_of_the_compiler(
    settings: dict[str, Any], exported_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    path = exported_model_folder("llama") / "model.onnx"
    run, switches = switched(path, CompileConfig.of(**settings, kv_cache="float"))
    expected = compiled(path, tmp_path / "out.onnx", **settings)
    if settings.get("fuse", True):
        assert_same(run([True] * len(switches)), expected)
    plain = outputs(runtime.create_session(path, threads=1))
    assert_same(run([False] * len(switches)), plain)


def test_the_switched_model_runs_without_the_library(
    exported_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    path = exported_model_folder("gpt2") / "model.onnx"
    run, switches = switched(path, CompileConfig.of("mxfp4"), library=False)
    expected = compiled(path, tmp_path / "out.onnx", format="mxfp4", library=False)
    assert_same(run([True] * len(switches)), expected)


def test_switches_say_what_they_switch(exported_model_folder: Callable[[str], Path]) -> None:
    config = CompileConfig.of("dint4", overrides=(("*o_proj", "mxfp4", "none"),))
    _, switches = switched(exported_model_folder("llama") / "model.onnx", config)
    first = {switch.layer.rpartition("/")[2]: switch for switch in switches if "layers.0" in switch.layer}
    assert [*first] == ["q_proj", "k_proj", "v_proj", "qk", "pv", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert (first["qk"].attention, first["qk"].weights, first["qk"].activations) == ("qk", "int8", "int8")
    assert (first["pv"].attention, first["pv"].weights, first["pv"].activations) == ("pv", "dint4", "int8")
    assert (first["o_proj"].attention, first["o_proj"].weights, first["o_proj"].activations) == (None, "mxfp4", "none")
    assert (first["q_proj"].elements > 0, first["qk"].elements) == (True, 0)


@pytest.mark.parametrize("form", models.FORMS)
def test_elements_are_those_of_the_weight(form: str) -> None:
    (switch,) = switchable(models.linear(form), CompileConfig.of("amxfp4"))
    assert (switch.layer, switch.elements) == ("/layer", models.K * models.N)


@pytest.mark.parametrize("measured", [False, True])
def test_powers_are_those_of_the_result_and_of_its_error(measured: bool) -> None:
    model = models.linear("matmul", bias="right")
    weight, bias = (model.graph.initializers[name].const_value for name in ("w", "b"))
    assert weight is not None
    assert bias is not None
    w, b = weight.numpy(), bias.numpy()
    switchable(model, CompileConfig.of("amxfp4"))
    x = np.random.default_rng(3).standard_normal((2, 5, models.K)).astype(np.float32)
    given = {"x": x, SWITCHES: np.array([measured]), MEASURE: np.array(True)}
    (y, powers) = session_of(model).run(["y", POWERS], given)
    exact = x.astype(np.float64) @ w.astype(np.float64) + b
    quantized, bound = models.witness(x, np.ascontiguousarray(w.T), b, "amxfp4", "amxfp4")
    roundings = (models.K + 2) * models.UNIT_ROUNDOFF
    bound = bound + roundings * (np.abs(x).astype(np.float64) @ np.abs(w) + np.abs(b))
    error = quantized - exact
    assert y == pytest.approx(exact, abs=float(bound.max()))  # float, whatever the switch says
    # The square of an error that is off by the bound; sums of a row in float32.
    allowed = [
        (2 * np.abs(power) * bound + bound**2 + models.N * models.UNIT_ROUNDOFF * power**2).sum()
        for power in (exact, error)
    ]
    assert abs(powers[0, 0] - (exact**2).sum()) <= allowed[0]
    assert abs(powers[0, 1] - (error**2).sum()) <= allowed[1]
    assert powers[0, 1] > 0


def test_powers_are_zero_unless_they_are_measured() -> None:
    model = models.linear()
    switchable(model, CompileConfig.of("amxfp4"))
    x = np.ones((1, 2, models.K), np.float32)
    for chosen in (False, True):
        given = {"x": x, SWITCHES: np.array([chosen]), MEASURE: np.array(False)}
        assert session_of(model).run([POWERS], given)[0].tolist() == [[0, 0]]


def test_a_constant_factor_behind_a_product_belongs_to_both_branches() -> None:
    weights = models.random_weights(w=[models.K, models.N]) | {"c": np.float32(0.3)}
    body = '["/layer/MatMul"] t = MatMul(x, w) y = Mul(t, c)'
    shapes = f"float[b,s,{models.K}] x", f"float[b,s,{models.N}] y"
    model = models.parse(body, *shapes, weights)
    switchable(model, CompileConfig.of("amxfp4"))
    assert [node.op_type for node in model.graph if node.op_type in ("MatMul", "Mul", "If")] == ["If"]
    x = np.random.default_rng(3).standard_normal((2, 5, models.K)).astype(np.float32)
    plain = models.run(models.parse(body, *shapes, weights), x=x)
    given = {"x": x, SWITCHES: np.array([False]), MEASURE: np.array(False)}
    assert np.array_equal(session_of(model).run(["y"], given)[0], plain)


def test_a_result_that_others_read_before_the_bias_stays_readable() -> None:
    weights = models.random_weights(w=[models.K, models.N], b=[models.N])
    body = '["/layer/MatMul"] t = MatMul(x, w) u = Add(t, b) y = Mul(u, t)'
    shapes = f"float[b,s,{models.K}] x", f"float[b,s,{models.N}] y"
    model = models.parse(body, *shapes, weights)
    switchable(model, CompileConfig.of("amxfp4"))
    assert [node.op_type for node in model.graph if node.op_type in ("If", "Add", "Mul")] == ["If", "Add", "Mul"]
    x = np.random.default_rng(3).standard_normal((2, 5, models.K)).astype(np.float32)
    given = {"x": x, SWITCHES: np.array([False]), MEASURE: np.array(False)}
    plain = models.run(models.parse(body, *shapes, weights), x=x)
    assert np.array_equal(session_of(model).run(["y"], given)[0], plain)


@pytest.mark.parametrize("dtype", ["float16", "float"])
def test_results_keep_the_type_of_the_graph(dtype: str, tmp_path: Path) -> None:
    onnx_file.write_model(models.linear("matmul", bias="right", dtype=dtype), tmp_path / "plain.onnx")
    compile_model(tmp_path / "plain.onnx", output=tmp_path / "out.onnx", format="mxfp4")
    model = models.linear("matmul", bias="right", dtype=dtype)
    switchable(model, CompileConfig.of("mxfp4"))
    x = {"x": np.random.default_rng(3).standard_normal((2, 5, models.K)).astype(ir.DataType[dtype.upper()].numpy())}
    session, off = session_of(model), {SWITCHES: np.array([False]), MEASURE: np.array(False)}
    for file, chosen in (("plain.onnx", False), ("out.onnx", True)):
        (expected,) = runtime.create_session(tmp_path / file, threads=1).run(["y"], x)
        (found,) = session.run(["y"], x | off | {SWITCHES: np.array([chosen])})
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


def test_a_product_in_a_branch_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"/layer: lies in a branch .* leave it out with --exclude"):
        switchable(models.branches(), CompileConfig.of("amxfp4"))


def test_a_pattern_without_a_match_is_refused() -> None:
    with pytest.raises(ConfigError, match="--exclude 'nothing' matches no layer; the model has /layer"):
        switchable(models.linear(), CompileConfig.of("amxfp4", exclude=("nothing",)))
