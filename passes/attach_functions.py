"""attach-functions: the bodies of the custom ops, so that the file runs without our library."""

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from mxcompile.formats import NONE
from mxcompile.ops import DOMAIN, VERSION, functions

_FORMAT_ATTRIBUTES = ("format", "a_format", "b_format")


@dataclasses.dataclass(frozen=True)
class AttachFunctions(ir.passes.InPlacePass):
    """Adds the body of every custom op, for exactly the formats that the model's nodes use, and the opset import.

    A model without custom ops stays as it is. Looks at the nodes of the main graph and its subgraphs; the functions
    that the model has already are kept, except older bodies of the custom ops.
    """

    name: ClassVar[str] = "attach-functions"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Adds or replaces the bodies."""
        formats = used_formats(model)
        if not formats - {NONE}:
            return ir.passes.PassResult(model, False)
        modified = model.opset_imports.get(DOMAIN) != VERSION
        model.opset_imports[DOMAIN] = VERSION
        for function in functions(sorted(formats)):
            present = model.functions.get(function.identifier())
            if present is None or _content(present) != _content(function):
                model.functions[function.identifier()] = function
                modified = True
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """Every custom op has a body."""
        for node in model.graph.all_nodes():
            if node.domain == DOMAIN and node.op_identifier() not in model.functions:
                raise ir.passes.PostconditionError(f"{node.op_type} {node.name} has no body: no such op is known")


def used_formats(model: ir.Model) -> set[str]:
    """The formats that stand in the attributes of the model's custom ops, ``none`` included."""
    nodes = [node for node in model.graph.all_nodes() if node.domain == DOMAIN]
    named = [node.attributes.get_string(key) for node in nodes for key in _FORMAT_ATTRIBUTES]
    return {name for name in named if name is not None}


def _content(function: ir.Function) -> bytes:
    content: bytes = ir.to_proto(function).SerializeToString(deterministic=True)
    return content
