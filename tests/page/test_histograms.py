"""Histograms of a page: what they count, and the operands of products that they are of."""

import math
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import numpy.typing as npt
import pytest

from mxcompile import exporter, onnx_file, runtime
from mxcompile.config import CompileConfig
from mxcompile.formats import FORMATS, get_format
from mxcompile.kv_cache import empty_cache
from mxcompile.page import operands
from mxcompile.page.histograms import BINS, bin_edges, describe_operands, histogram
from mxcompile.page.operands import SAMPLE, Operand, sample_operands, stride

Array = npt.NDArray[np.float32]

TOKENS = 40


def normal(*shape: int, seed: int = 5) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_block_that_is_counted_by_hand() -> None:
    x = np.zeros((1, 32), np.float32)
    x[0, :5] = 7, -3, 2.4, 0.2, -0.3  # a scale of 2**(2 - 2)
    found = histogram("/layer", "weights", get_format("mxfp4"), x)
    assert (found.layer, found.operand, found.format, found.elements) == ("/layer", "weights", "mxfp4", 32)
    assert (found.edges[0], found.edges[-1], len(found.counts)) == (-3, 7, 120)
    counts = {bin: count for bin, count in enumerate(found.counts) if count}  # bins of 1 / 12
    assert counts == {0: 1, 32: 1, 36: 27, 38: 1, 64: 1, 119: 1}
    levels = {level: count for level, count in zip(found.levels, found.level_counts, strict=True) if count}
    assert levels == {-3: 1, -0.5: 1, 0: 28, 2: 1, 6: 1}
    power, noise = 49 + 9 + 2.4**2 + 0.2**2 + 0.3**2, 1 + 0.4**2 + 0.2**2 + 0.2**2
    assert found.sqnr_db == pytest.approx(10 * math.log10(power / noise), rel=1e-6)  # float32 input


@pytest.mark.parametrize("name", FORMATS)
def test_every_element_is_counted_once(name: str) -> None:
    x = normal(64, 70)
    x[0, :10] *= 40
    found = histogram("/layer", "weights", get_format(name), x)
    assert sum(found.counts) == found.elements == x.size
    assert len(found.edges) == len(found.counts) + 1 <= BINS + 1
    assert np.ptp(np.diff(found.edges)) < 1e-9 * np.diff(found.edges)[0] * len(found.edges)
    eight_bits = get_format(name).element.bits == 8 and name != "amxint4"
    assert (found.levels == ()) == (found.level_counts == ()) == eight_bits
    assert eight_bits or sum(found.level_counts) == x.size
    x_hat = get_format(name).fake_quantize(x).astype(np.float64)
    expected = 10 * np.log10((x.astype(np.float64) ** 2).sum() / ((x_hat - x) ** 2).sum())
    assert found.sqnr_db == pytest.approx(expected, abs=1e-4)  # differences are float32 there


def test_bins_are_those_of_numpy() -> None:
    fmt, x = get_format("amxfp4"), normal(32, 64)
    found = histogram("/layer", "weights", fmt, x)
    units = fmt.row_units(x, fmt.encode_rows(x)[1]).astype(np.float64)
    assert units.min() > found.edges[0]
    assert units.max() < found.edges[-1]
    assert np.histogram(units, found.edges)[0].tolist() == list(found.counts)


@pytest.mark.parametrize(
    ("name", "least", "most", "bins"),
    [
        ("mxfp4", -6.5, 7.9, (-7, 8, 120)),
        ("mxfp4", 0, 6, (0, 6, 120)),
        ("mxfp4", 0, 0, (0, 1, 120)),
        ("mxfp4", -1000, 1000, (-8, 8, 112)),  # what lies beyond counts in the outermost bins
        ("mxfp4", 20, 1000, (7, 8, 120)),
        ("int8", -128, 127, (-128, 127, 85)),
        ("mxfp8_e5m2", -40000, 60000, (-40000, 60080, 120)),
        ("mxint8", -1.5, 1.9, (-2, 2, 120)),
    ],
)
def test_edges_enclose_the_elements(name: str, least: float, most: float, bins: tuple[int, int, int]) -> None:
    edges = bin_edges(get_format(name), least, most)
    assert (edges[0], edges[-1], len(edges) - 1) == bins


def test_what_is_beyond_the_edges_counts_in_the_outermost_bins() -> None:
    x = np.full((1, 32), 1e30, np.float32)  # the scale saturates at 57344
    x[0, 0] = -1e30
    found = histogram("/layer", "weights", get_format("amxfp4"), x)
    assert (found.counts[0], found.counts[-1], sum(found.counts)) == (1, 31, 32)
    assert (found.level_counts[0], found.level_counts[-1]) == (1, 31)


def test_operands_that_are_equal_have_no_noise() -> None:
    assert histogram("/layer", "weights", get_format("mxfp4"), np.ones((1, 32), np.float32)).sqnr_db == math.inf


def test_rows_that_are_not_finite_are_left_out() -> None:
    rows = normal(4, 32)
    rows[1, 3], rows[2, 5] = np.nan, -np.inf
    operand = Operand((("/a", "activations"), ("/b", "activations")), get_format("mxfp4"), rows)
    found = list(describe_operands([operand]))
    assert [(each.layer, each.elements) for each in found] == [("/a", 64), ("/b", 64)]
    assert not list(describe_operands([Operand((("/a", "weights"),), get_format("mxfp4"), rows[1:3])]))


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (SAMPLE // 64, 64), (SAMPLE, 64), (10**6, 4096), (3, SAMPLE)])
def test_strides_are_odd_and_leave_no_more_than_a_sample(rows: int, length: int) -> None:
    step = stride(rows, length)
    assert step % 2 == 1
    assert -(-rows // step) * length <= SAMPLE + length
    assert step == 1 or -(-rows // (step - 2)) * length > SAMPLE / 2


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of 200 elements."""
    bodies = tuple(body.replace(str(SAMPLE - 1), "199").replace(str(SAMPLE), "200") for body in operands._BODIES)
    monkeypatch.setattr(operands, "_BODIES", bodies)
    monkeypatch.setattr(operands, "SAMPLE", 200)


@pytest.mark.parametrize("form", models.FORMS)
def test_operands_of_a_linear_layer(form: str) -> None:
    model = models.linear(form)
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    w, x = weight.numpy(), normal(*([10] if form.startswith("gemm") else [2, 5]), models.K)
    config = CompileConfig.of("mxfp4", activations="int8")
    activations, weights = sample_operands(model, config, {"x": x}, threads=1)
    assert (activations.uses, activations.format.name) == ((("/layer", "activations"),), "int8")
    assert (weights.uses, weights.format.name) == ((("/layer", "weights"),), "mxfp4")
    assert np.array_equal(activations.rows, x.reshape(10, models.K))
    assert np.array_equal(weights.rows, w if form in models.ROWS else w.T)


@pytest.mark.usefixtures("small_sample")
def test_samples_are_evenly_spaced_rows() -> None:
    x = normal(4, 10, models.K)
    model = models.linear("transpose")
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    w = weight.numpy()
    activations, weights = sample_operands(model, CompileConfig.of("nvfp4"), {"x": x}, threads=1)
    assert np.array_equal(activations.rows, x.reshape(40, models.K)[::9])  # 1600 / 200 = 8, made odd
    assert np.array_equal(weights.rows, w[::5])  # 960 / 200 = 4.8
    # The tensor scale is that of the whole tensor all the same.
    for operand, whole in ((activations, x), (weights, w)):
        assert operand.format == get_format("nvfp4").for_tensor(float(np.abs(whole).max()))


@pytest.mark.parametrize("form", models.FORMS)
def test_weights_are_copies_of_what_is_in_the_file(form: str, tmp_path: Path) -> None:
    onnx_file.write_model(models.linear(form), tmp_path / "plain.onnx")
    expected = sample_operands(models.linear(form), CompileConfig.of("mxfp4"), None)
    with exporter.open_model(str(tmp_path / "plain.onnx")) as exported:
        (model,) = exported.models.values()
        found = sample_operands(model, CompileConfig.of("mxfp4"), None)
    assert np.array_equal(found[0].rows, expected[0].rows)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_operands_of_other_types_are_widened(dtype: str) -> None:
    model = models.linear(dtype=dtype)
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    (weights,) = sample_operands(model, CompileConfig.of("mxfp4"), None)
    assert weights.rows.dtype == np.float32
    assert np.array_equal(weights.rows, weight.numpy().T.astype(np.float32))


def test_activations_that_stay_in_float_are_no_operand() -> None:
    x = normal(2, 5, models.K)
    (weights,) = sample_operands(models.linear(), CompileConfig.of("mxfp4", activations="none"), {"x": x})
    assert weights.uses == (("/layer", "weights"),)


def test_products_that_share_an_input_share_its_sample(attention: tuple[dict[str, Operand], dict[str, Array]]) -> None:
    found, _ = attention
    uses = [("/model/layers.0/self_attn/" + name, "activations") for name in ("q_proj", "k_proj", "v_proj")]
    assert sorted(found["/model/layers.0/self_attn/q_proj activations"].uses) == sorted(uses)


@pytest.fixture(scope="module")
def attention(exported_model_folder: Callable[[str], Path]) -> tuple[dict[str, Operand], dict[str, Array]]:
    """The operands of a tiny llama by layer and name, and the outputs of the float model."""
    file = exported_model_folder("llama") / "model.onnx"
    session = runtime.create_session(file, threads=1)
    sample = {"input_ids": np.random.default_rng(0).integers(3, 90, (1, TOKENS))}
    more = {"attention_mask": np.ones((1, TOKENS), np.int64), "position_ids": np.arange(TOKENS)[np.newaxis]}
    names = {value.name for value in session.get_inputs()}
    feeds = {name: array for name, array in (sample | more).items() if name in names}
    feeds |= empty_cache(session.get_inputs())
    outputs = [value.name for value in session.get_outputs()]
    with exporter.open_model(str(file)) as exported:
        (model,) = exported.models.values()
        config = CompileConfig.of("amxfp4", kv_format="mxfp8_e4m3", kv_cache="float")
        found = sample_operands(model, config, sample, threads=1)
    by_name = {f"{layer} {name}": operand for operand in found for layer, name in operand.uses}
    return by_name, dict(zip(outputs, session.run(outputs, feeds), strict=True))


def test_operands_of_an_attention(attention: tuple[dict[str, Operand], dict[str, Array]]) -> None:
    found, outputs = attention
    for layer in range(2):
        path = f"/model/layers.{layer}/self_attn"
        keys, values = outputs[f"present.{layer}.key"], outputs[f"present.{layer}.value"]
        head_dim = keys.shape[-1]
        # In the float model, and in the layout that is quantized: values are rows of tokens.
        assert np.array_equal(found[f"{path}/qk keys"].rows, keys.reshape(-1, head_dim))
        rows = np.swapaxes(values, -1, -2).reshape(-1, TOKENS)
        assert np.array_equal(found[f"{path}/pv values"].rows, rows)
        queries, probabilities = found[f"{path}/qk queries"], found[f"{path}/pv probabilities"]
        assert queries.rows.shape == (4 * TOKENS, head_dim)
        assert probabilities.rows.shape == (4 * TOKENS, TOKENS)
        assert np.abs(probabilities.rows.sum(axis=-1) - 1).max() <= (TOKENS + 2) * models.UNIT_ROUNDOFF
        assert np.count_nonzero(np.triu(probabilities.rows[:TOKENS], 1)) == 0  # causal
        formats = [found[f"{path}/{name}"].format.name for name in ("qk keys", "pv values", "qk queries")]
        assert formats == ["mxfp8_e4m3", "mxfp8_e4m3", "amxfp4"]


def test_blocks_of_a_token_run_along_its_features(exported_model_folder: Callable[[str], Path]) -> None:
    sample = {"input_ids": np.random.default_rng(0).integers(3, 90, (1, TOKENS))}
    with exporter.open_model(str(exported_model_folder("llama") / "model.onnx")) as exported:
        (model,) = exported.models.values()
        config = CompileConfig.of("amxfp4", include=("*pv",), kv_blocking="token")
        found = sample_operands(model, config, sample, threads=1)
    shapes = {name: operand.rows.shape for operand in found for layer, name in operand.uses if "layers.0" in layer}
    assert shapes == {"probabilities": (4 * TOKENS, TOKENS), "values": (2 * TOKENS, 16)}
