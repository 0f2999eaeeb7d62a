"""The whole pipeline, fused or not, gives what the NumPy definition of the formats says, in a stock onnxruntime."""

import itertools

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from models import (
    FORMS,
    ROWS,
    UNIT_ROUNDOFF_HALF,
    K,
    N,
    branches,
    counts,
    decoder,
    linear,
    parse,
    random_weights,
    run,
    witness,
)

from mxcompile.config import CompileConfig
from mxcompile.passes import (
    AttachFunctions,
    FuseMatMulBlock,
    InsertQuantize,
    NormalizeLinears,
    PackWeights,
    SelectFormats,
)

PAIRS = list(itertools.product(["amxfp4", "mxfp4", "amxfp4_b16"], ["amxfp4", "mxfp4", "none"]))


def quantize(model: ir.Model, weights: str = "amxfp4", activations: str = "amxfp4", *, fuse: bool) -> ir.Model:
    """The model after the pipeline."""
    config = CompileConfig(weights, activations)
    passes = [NormalizeLinears(), SelectFormats(config), InsertQuantize(), PackWeights()]
    for each in [*passes, *([FuseMatMulBlock()] if fuse else []), AttachFunctions()]:
        each(model)
    assert counts(model, "MatMulBlock")[0] == 0 if not fuse else counts(model, "MatMulBlock")[0] > 0
    return model


def constants(model: ir.Model, form: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of K and bias of a model of `linear`."""
    tensors = {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}
    return tensors["w"] if form in ROWS else tensors["w"].T, tensors.get("b")


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("bias", [None, "left", "right"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_linear_layer(form: str, bias: str | None, fuse: bool) -> None:
    model = linear(form, bias)
    x = random_weights(3, x=[5, K] if form.startswith("gemm") else [2, 5, K])["x"]
    expected, bound = witness(x, *constants(model, form), "amxfp4", "amxfp4")
    assert (np.abs(run(quantize(model, fuse=fuse), x=x) - expected) <= bound).all()


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(("weights", "activations"), PAIRS)
def test_every_pair_of_formats(weights: str, activations: str, fuse: bool) -> None:
    model = linear("matmul", "left")
    x = random_weights(4, x=[2, 5, K])["x"]
    expected, bound = witness(x, *constants(model, "matmul"), weights, activations)
    assert (np.abs(run(quantize(model, weights, activations, fuse=fuse), x=x) - expected) <= bound).all()


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("activations", ["amxfp4", "none"])
def test_float16(activations: str, fuse: bool) -> None:
    model = linear("matmul", "right", "float16")
    x = random_weights(5, np.float16, x=[2, 5, K])["x"]
    rows, bias = constants(model, "matmul")
    assert bias is not None
    expected, bound = witness(x, rows, bias, "amxfp4", activations)
    # Not fused, the product is rounded to float16 before the bias comes, and again after it.
    half = 2 * UNIT_ROUNDOFF_HALF * (np.abs(expected) + np.abs(bias.astype(np.float64)) + bound)
    y = run(quantize(model, activations=activations, fuse=fuse), x=x)
    assert y.dtype == np.float16
    assert (np.abs(y - expected) <= bound + half).all()


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("activations", ["amxfp4", "none"])
def test_bfloat16(activations: str, fuse: bool) -> None:
    weights = random_weights(dtype=ml_dtypes.bfloat16, w=[K, N])
    body = "h = Cast<to = 16>(x) t = MatMul(h, w) y = Cast<to = 1>(t)"
    model = parse(body, f"float[b,{K}] x", f"float[b,{N}] y", weights)
    x = random_weights(6, ml_dtypes.bfloat16, x=[5, K])["x"].astype(np.float32)
    expected, bound = witness(x, weights["w"].T, None, "amxfp4", activations)
    rounding = 2.0**-8 * (np.abs(expected) + bound)  # unit roundoff of bfloat16: 8 significant bits
    y = run(quantize(model, activations=activations, fuse=fuse), x=x)
    assert (np.abs(y - expected) <= bound + rounding).all()


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("branch", [True, False])
def test_both_branches_of_an_if(branch: bool, fuse: bool) -> None:
    model = branches()
    rows, bias = (model.graph.initializers[name].const_value.numpy() for name in ("w", "bias"))  # type: ignore[union-attr]
    x = random_weights(7, x=[2, 5, K])["x"]
    expected, bound = witness(x, rows.T, None if branch else bias, "amxfp4", "amxfp4")
    y = run(quantize(model, fuse=fuse), x=x, c=np.array(branch))
    assert (np.abs(y - expected) <= bound).all()


def test_a_decoder_gives_the_same_fused_and_not() -> None:
    """The bodies of the fused ops compute what stands in the other graph, in the same order, unless it is rearranged.

    A bound would not do: between two layers a last-bit difference may tip a quantizer.
    """
    ids = np.random.default_rng(8).integers(0, 50, [2, 7])
    exact = run(decoder(), ids=ids)
    fused, unfused = (run(quantize(decoder(), fuse=fuse), optimize=False, ids=ids) for fuse in (True, False))
    np.testing.assert_array_equal(fused, unfused)
    assert not np.array_equal(fused, exact)


def test_an_empty_batch_stays_empty() -> None:
    y = run(quantize(linear("matmul", "left"), fuse=True), x=np.zeros((0, 5, K), np.float32))
    assert y.shape == (0, 5, N)
