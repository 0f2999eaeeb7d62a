"""attach-functions: bodies for exactly the formats in use."""

import onnx_ir as ir
import pytest
from models import branches, decoder, linear, nodes

from mxcompile.config import CompileConfig
from mxcompile.ops import DEQUANTIZE, DOMAIN, MATMUL, QUANTIZE, VERSION
from mxcompile.passes import AttachFunctions, FuseMatMulBlock, InsertQuantize, PackWeights, SelectFormats
from mxcompile.passes.attach_functions import used_formats

ATTACH = AttachFunctions()


def prepare(model: ir.Model, weights: str = "amxfp4", activations: str = "amxfp4", **settings: object) -> ir.Model:
    """The model as attach-functions gets it."""
    config = CompileConfig(weights, activations, **settings)  # type: ignore[arg-type]
    for each in (SelectFormats(config), InsertQuantize(), PackWeights(), FuseMatMulBlock()):
        each(model)
    return model


def constants(model: ir.Model) -> set[str]:
    """The string constants in the bodies: the formats that these tell apart."""
    bodies = [node for function in model.functions.values() for node in function.all_nodes()]
    values = [node.attributes["value_string"] for node in bodies if "value_string" in node.attributes]
    return {value.as_string() for value in values if not value.is_ref()}


@pytest.mark.parametrize("build", [linear, decoder, branches])
def test_the_three_bodies_and_the_import_are_added(build: object) -> None:
    model = prepare(build())  # type: ignore[operator]
    assert ATTACH(model).modified
    assert set(model.functions) == {(DOMAIN, name, "") for name in (QUANTIZE, DEQUANTIZE, MATMUL)}
    assert model.opset_imports == {"": 21, DOMAIN: VERSION}
    assert not ATTACH(model).modified


def test_formats_are_those_of_the_nodes() -> None:
    overrides = (("*k_proj", "mxfp4", "none"), ("*v_proj", "amxfp4_b16", "amxfp4_b64"))
    model = prepare(decoder(), overrides=overrides)
    assert used_formats(model) == {"amxfp4", "mxfp4", "none", "amxfp4_b16", "amxfp4_b64"}
    ATTACH(model)
    # Sorted, the last of the formats needs no comparison: it is what the others leave.
    assert constants(model) == {"amxfp4", "amxfp4_b16", "amxfp4_b64", "none"}


def test_bodies_of_fewer_formats_are_replaced() -> None:
    model = prepare(linear())
    ATTACH(model)
    nodes(model, MATMUL)[0].attributes.add(ir.AttrString("a_format", "mxfp4"))
    assert ATTACH(model).modified
    assert constants(model) == {"amxfp4"}
    assert not ATTACH(model).modified


def test_a_model_without_custom_ops_stays() -> None:
    model = linear()
    assert not ATTACH(model).modified
    assert (dict(model.functions), model.opset_imports) == ({}, {"": 21})


def test_nothing_else_changes() -> None:
    model = prepare(linear())
    nodes_before, initializers_before = list(map(str, model.graph)), list(model.graph.initializers.values())
    ATTACH(model)
    assert list(map(str, model.graph)) == nodes_before
    assert list(model.graph.initializers.values()) == initializers_before
    assert model.metadata_props == {}


def test_an_op_without_a_body_is_an_error() -> None:
    model = prepare(linear())
    model.graph.append(ir.node("Unknown", [model.graph.inputs[0]], domain=DOMAIN, name="strange"))
    with pytest.raises(ir.passes.PostconditionError, match="Unknown strange has no body"):
        ATTACH(model)
