"""pack-weights: codes and scales in place of float weights."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from models import DECODER_LAYERS, FORMS, ROWS, K, N, branches, counts, decoder, linear, nodes, parse, random_weights

from mxcompile.config import CompileConfig
from mxcompile.errors import UnsupportedModelError
from mxcompile.formats import get_format
from mxcompile.passes import InsertQuantize, NormalizeLinears, PackWeights, SelectFormats, pack_weights

PACK = PackWeights()


def prepare(model: ir.Model, **settings: object) -> ir.Model:
    """The model as pack-weights gets it."""
    NormalizeLinears()(model)
    SelectFormats(CompileConfig(**{"weights": "amxfp4", "activations": "amxfp4"} | settings))(model)  # type: ignore[arg-type]
    InsertQuantize()(model)
    return model


def array(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


@pytest.mark.parametrize("fmt", ["amxfp4", "mxfp4", "amxfp4_b16"])
@pytest.mark.parametrize("form", FORMS)
def test_codes_and_scales_are_those_of_the_format(form: str, fmt: str) -> None:
    model = linear(form, "right")
    rows = array(model, "w") if form in ROWS else array(model, "w").T
    expected = get_format(fmt).quantize(rows)
    prepare(model, weights=fmt)
    assert PACK(model).modified
    assert list(model.graph.initializers) == ["b", "w.codes", "w.scales"]
    np.testing.assert_array_equal(array(model, "w.codes"), expected.codes)
    np.testing.assert_array_equal(array(model, "w.scales"), expected.scales)
    assert not PACK(model).modified


def test_types_and_shapes_of_the_initializers() -> None:
    model = prepare(linear())
    PACK(model)
    values = model.graph.initializers.values()
    assert [(value.dtype, str(value.shape)) for value in values] == [
        (ir.DataType.UINT8, f"[{N},{K // 2}]"),
        (ir.DataType.UINT8, f"[{N},2,2]"),
    ]
    assert [value.const_value.name for value in values if value.const_value] == ["w.codes", "w.scales"]


def test_the_decoder_of_the_weight_reads_them_and_activations_stay() -> None:
    model = prepare(linear())
    PACK(model)
    (quantize,) = nodes(model, "QuantizeBlock")
    assert quantize.inputs[0] is model.graph.inputs[0]
    decoder_of_weight = nodes(model, "DequantizeBlock")[-1]
    assert [value.name for value in decoder_of_weight.inputs if value] == ["w.codes", "w.scales"]


@pytest.mark.parametrize("name", ["onnx::MatMul_733", "onnx::MatMul_676_merged_0", "733", "val_12"])
def test_a_made_up_weight_name_gives_way_to_the_layer(name: str) -> None:
    model = decoder()
    model.graph.initializers["wq"].name = name
    prepare(model, include=("*q_proj",))
    PACK(model)
    assert "layers.0.attn.q_proj.weight.codes" in model.graph.initializers


@pytest.mark.parametrize("chunk", [1, K, 5 * K, N * K])
def test_chunks_give_the_same_as_the_whole(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = get_format("amxfp4").quantize(array(linear(), "w").T)
    monkeypatch.setattr(pack_weights, "CHUNK_ELEMENTS", chunk)
    model = prepare(linear())
    PACK(model)
    np.testing.assert_array_equal(array(model, "w.codes"), expected.codes)
    np.testing.assert_array_equal(array(model, "w.scales"), expected.scales)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_widened_exactly(dtype: str) -> None:
    model = linear("transpose", dtype=dtype)
    expected = get_format("amxfp4").quantize(array(model, "w").astype(np.float32))
    prepare(model)
    PACK(model)
    np.testing.assert_array_equal(array(model, "w.codes"), expected.codes)
    np.testing.assert_array_equal(array(model, "w.scales"), expected.scales)


def test_both_branches_share_one_packed_weight() -> None:
    model = prepare(branches())
    PACK(model)
    assert list(model.graph.initializers) == ["bias", "w.codes", "w.scales"]
    assert counts(model, "QuantizeBlock", "DequantizeBlock") == [2, 4]


def test_the_same_weight_in_two_formats_is_packed_twice() -> None:
    body = '["/a/MatMul"] p = MatMul(x, w) ["/b/MatMul"] q = MatMul(x, w) y = Sum(p, q)'
    model = parse(body, f"float[b,{K}] x", f"float[b,{N}] y", random_weights(w=[K, N]))
    PACK(prepare(model, overrides=(("/b", "mxfp4", "mxfp4"),)))
    assert list(model.graph.initializers) == ["w.codes", "w.scales", "w.codes_1", "w.scales_1"]


def test_a_weight_that_others_read_stays() -> None:
    model = prepare(decoder(), include=("/head",))
    embedding = model.graph.initializers["embed"]
    PACK(model)
    assert model.graph.initializers["embed"] is embedding
    assert "embed.codes" in model.graph.initializers


def test_a_weight_that_is_an_output_stays() -> None:
    weights = random_weights(w=[N, K])
    body = "t = Transpose(w) y = MatMul(x, t)"
    model = parse(body, f"float[b,{K}] x", f"float[b,{N}] y, float[{N},{K}] w", weights)
    PACK(prepare(model))
    assert list(model.graph.initializers) == ["w", "w.codes", "w.scales"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_an_error_that_says_where(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_weights, "CHUNK_ELEMENTS", 5 * K)
    model = linear()
    broken = array(model, "w").copy()
    broken[3, 17] = value
    model.graph.initializers["w"].const_value = ir.tensor(broken)
    prepare(model)
    with pytest.raises(UnsupportedModelError, match=f"w.rows of /layer: element 17 of output, 3 of input is {value}"):
        PACK(model)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    model = prepare(decoder())
    PackWeights(lambda done, total: told.append((done, total)))(model)
    assert told == [(done, len(DECODER_LAYERS)) for done in range(len(DECODER_LAYERS) + 1)]


@pytest.mark.parametrize("form", ["matmul", "transpose"])
def test_a_weight_on_disk_is_unmapped_afterwards(form: str, tmp_path: Path) -> None:
    model = linear(form)
    array(model, "w").tofile(tmp_path / "w.bin")
    dims = ir.Shape([N, K] if form in ROWS else [K, N])
    on_disk = ir.ExternalTensor("w.bin", 0, 4 * N * K, ir.DataType.FLOAT, shape=dims, name="w", base_dir=tmp_path)
    expected = get_format("amxfp4").quantize(array(model, "w") if form in ROWS else array(model, "w").T)
    model.graph.initializers["w"].const_value = on_disk
    prepare(model)
    assert on_disk.raw is None  # nobody has read it yet
    PACK(model)
    assert on_disk.raw is None
    np.testing.assert_array_equal(array(model, "w.codes"), expected.codes)


@pytest.mark.parametrize(
    "body", ['c, s = mxcompile.QuantizeBlock<format = "mxfp4", axis = 0>(w)', "c, s = other.QuantizeBlock(w)"]
)
def test_other_quantizers_stay(body: str) -> None:
    model = parse(f"{body} y = Identity(x)", "float[b] x", "float[b] y", random_weights(w=[N, K]))
    assert not PACK(model).modified
