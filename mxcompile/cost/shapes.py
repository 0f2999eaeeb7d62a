"""Symbolic shapes of all values of a model, on side tables: the model is not changed.

Exported graphs state shapes of inputs and outputs only. `visit` walks nodes in order, follows dimensions as exact
expressions, and what is in short vectors of integers along with them, for those become shapes again. It goes into both
branches of an ``If`` and into model-local functions; the operators of this project are followed as themselves, never
through their bodies. What does not follow from the graph is unknown, with the reason, never a guess.

Why not the package ``onnx-shape-inference`` (0.4.0 was tried): it leaves 6% to 52% of the shapes of the models that the
tests export unknown, among them all that an ``Expand`` through ``Where(Equal(shape, -1), ...)`` makes; takes every
dimension for positive, so that an empty cache simplifies wrongly; and writes into the model.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Final

import numpy as np
import onnx_ir as ir
import sympy

from mxcompile.cost.element_rules import ELEMENTS, LONGEST
from mxcompile.cost.origins import is_decoded_by_readers, trace
from mxcompile.cost.quantities import Quantity, ceil_divide, choose, multiply, names, parse, product, symbol
from mxcompile.cost.shape_rules import DIMS
from mxcompile.cost.tensors import Call, Dims, Elements, Origin, Tensor, UnknownError
from mxcompile.kv_cache import PAST
from mxcompile.ops import DEQUANTIZE, DOMAIN, QUANTIZE

DOMAINS: Final = ("", "com.microsoft", DOMAIN)
"""Domains whose operators are known by name."""

_BOOLEAN: Final = frozenset(
    {"And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"}
)
_INDICES: Final = frozenset({"ArgMax", "ArgMin", "NonZero", "Shape", "Size"})
_FOLLOWED: Final = frozenset(
    {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT16, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.BOOL}
)
"""Types of vectors whose elements are followed."""

MALFORMED: Final = (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
"""What rules raise for nodes that have not the inputs or attributes that ONNX asks for."""

_ROUTES: Final = frozenset({"Cast", "Equal", "Gather", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators between the OneHot of a mixture's choice and the NonZero that lists an expert's tokens."""

TOKENS_PER_EXPERT: Final = "tokens_per_expert"
"""Dimension: how many tokens an expert of a mixture gets."""


@dataclasses.dataclass(frozen=True)
class Visit:
    """A node, with all that is known of what it reads and gives.

    Attributes:
        node: The node.
        call: It with its inputs.
        outputs: What it gives.
        path: Unique: the node's name, behind those of the nodes that it is inside of.
        runs: 1 if the node runs; in a branch that depends on the condition, a symbol of that name, or 1 less it.
    """

    node: ir.Node
    call: Call
    outputs: tuple[Tensor, ...]
    path: str
    runs: Quantity


@dataclasses.dataclass
class _Scope:
    """What is known so far in a graph; subgraphs share it, a function has its own."""

    functions: Mapping[ir.OperatorIdentifier, ir.Function]
    names: Set[str]
    tensors: dict[ir.Value, Tensor]
    attributes: Mapping[str, ir.Attr]
    sizes: set[Quantity]
    paths: set[str]
    assumed: dict[str, Quantity]


def visit(model: ir.Model, assumed: dict[str, Quantity] | None = None) -> Iterator[Visit]:
    """All nodes that run, in an order in which they can; nodes that an ``If`` or a function is made of in its place.

    Constants are no nodes, and nodes that read nothing but constants are visited with constant outputs.

    Args:
        model: The model.
        assumed: Filled with what dimensions that depend on data are taken to be, by name: how many tokens an expert
            of a mixture of experts gets.
    """
    known = _names(model)
    scope = _Scope(model.functions, known, {}, {}, set(), set(), {} if assumed is None else assumed)
    for value in model.graph.inputs:
        if value.name not in model.graph.initializers:
            scope.tensors[value] = _input(value, known)
    yield from _visit_nodes(model.graph, scope, "", 1)


def input_dims(model: ir.Model) -> dict[str, Dims]:
    """Names and dimensions of the model's inputs."""
    known = _names(model)
    values = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return {value.name or "": _input(value, known).dims or () for value in values}


def _names(model: ir.Model) -> set[str]:
    """Names of dimensions that are no expressions of others."""
    found = {
        dim.value
        for value in model.graph.inputs
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None
    }
    return {name for name in found if name.isidentifier()}


def _input(value: ir.Value, known: set[str]) -> Tensor:
    name = value.name or ""
    origin: Origin = "cache" if name.startswith(PAST) else "activation"
    if value.shape is None:
        return Tensor(name, value.dtype, None, origin=origin, unknown=f"input {name} has no shape")
    dims: list[Quantity] = []
    for axis, dim in enumerate(value.shape):
        if isinstance(dim, int):
            dims.append(dim)
        else:
            dims.append(parse(dim.value, known) if dim.value is not None else symbol(f"{name}.{axis}"))
    return Tensor(name, value.dtype, tuple(dims), _unknown_elements(value.dtype, tuple(dims)), origin)


def _visit_nodes(nodes: Iterable[ir.Node], scope: _Scope, prefix: str, runs: Quantity) -> Iterator[Visit]:
    for node in nodes:
        path = _unique(prefix + (node.name or f"{node.op_type}:{node.outputs[0].name}"), scope.paths)
        function = scope.functions.get(node.op_identifier()) if node.domain != DOMAIN else None
        if node.op_type == "Constant" and node.domain == "":
            tensor = node.attributes.get("value")
            if tensor is None or tensor.type is not ir.AttributeType.TENSOR:
                scope.tensors[node.outputs[0]] = _constant(node.outputs[0], _plain(node))
            else:
                scope.tensors[node.outputs[0]] = _constant(node.outputs[0], tensor.as_tensor())
        elif node.op_type == "If" and node.domain == "":
            yield from _visit_branches(node, scope, path, runs)
        elif function is not None:
            yield from _visit_function(node, function, scope, path, runs)
        else:
            yield _visit_node(node, scope, path, runs)


def _unique(path: str, taken: set[str]) -> str:
    unique, index = path, 1
    while unique in taken:
        unique, index = f"{path}_{index}", index + 1
    taken.add(unique)
    return unique


def _plain(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant that is written as numbers."""
    for name, attribute in node.attributes.items():
        if name.startswith(("value_float", "value_int")):
            return ir.Tensor(np.array(attribute.value, np.int64 if "int" in name else np.float32))
    return None


def _constant(value: ir.Value, tensor: ir.TensorProtocol | None) -> Tensor:
    name = value.name or ""
    if tensor is None:
        return Tensor(name, value.dtype, None, origin="constant", unknown=f"constant {name} has no values")
    dims = tuple(tensor.shape.numpy())
    followed = tensor.dtype in _FOLLOWED and len(dims) <= 1 and tensor.size <= LONGEST
    elements = tuple(int(each) for each in tensor.numpy().reshape(-1)) if followed else None
    return Tensor(name, tensor.dtype, dims, elements, "constant")


def _tensor(value: ir.Value | None, scope: _Scope) -> Tensor | None:
    if value is None:
        return None
    if value not in scope.tensors:
        if value.const_value is not None:
            scope.tensors[value] = _constant(value, value.const_value)
        else:
            reason = f"nothing is known of {value.name}"
            scope.tensors[value] = Tensor(value.name or "", value.dtype, None, unknown=reason)
    return scope.tensors[value]


def _visit_branches(node: ir.Node, scope: _Scope, path: str, runs: Quantity) -> Iterator[Visit]:
    """Both branches of an If; only the one that is taken, if that is known."""
    condition = _tensor(node.inputs[0], scope)
    assert condition is not None  # If requires it
    elements = condition.elements or ()
    taken: Quantity | None = elements[0] if len(elements) == 1 else None
    if taken is None:
        taken = symbol(condition.name)
    outputs: dict[str, list[Tensor]] = {}
    for key, chance in (("then_branch", taken), ("else_branch", 1 - taken)):
        if chance == 0:
            continue
        branch = node.attributes[key].as_graph()
        for value in branch.inputs:
            _tensor(value, scope)
        yield from _visit_nodes(branch, scope, f"{path}/{key.removesuffix('_branch')}/", runs * chance)
        found = (_tensor(value, scope) for value in branch.outputs)
        outputs[key] = [each for each in found if each is not None]
    first = next(iter(outputs.values()))
    for index, value in enumerate(node.outputs):
        one = first[index]
        other = outputs["else_branch"][index] if len(outputs) > 1 else one
        dims = _either(taken, one.dims, other.dims)
        unknown = one.unknown or other.unknown or "the branches of an If give different numbers of dimensions"
        origin: Origin = one.origin if one.origin == other.origin else "activation"
        scope.tensors[value] = Tensor(
            value.name or "", one.dtype, dims, one.elements if one == other else None, origin, unknown=unknown
        )


def _either(taken: Quantity, one: Dims | None, other: Dims | None) -> Dims | None:
    if one is None or other is None or len(one) != len(other):
        return None
    condition = sympy.Ne(taken, 0)
    return tuple(choose(condition, a, b) for a, b in zip(one, other, strict=True))


def _visit_function(node: ir.Node, function: ir.Function, scope: _Scope, path: str, runs: Quantity) -> Iterator[Visit]:
    """The nodes of a model-local function, with the arguments of this call."""
    defaults = {name: attribute for name, attribute in function.attributes.items() if attribute.value is not None}
    arguments = {**defaults, **_attributes(node, scope)}
    inner = dataclasses.replace(scope, tensors={}, attributes=arguments)
    for index, value in enumerate(function.inputs):
        given = _tensor(node.inputs[index], scope) if index < len(node.inputs) else None
        if given is not None:
            inner.tensors[value] = given
    yield from _visit_nodes(function, inner, f"{path}/", runs)
    for value, result in zip(node.outputs, function.outputs, strict=False):
        tensor = _tensor(result, inner)
        assert tensor is not None  # outputs are values
        scope.tensors[value] = dataclasses.replace(tensor, name=value.name or "")


def _attributes(node: ir.Node, scope: _Scope) -> dict[str, ir.Attr]:
    """The node's attributes, those that refer to the function's filled in."""
    found = {}
    for name, attribute in node.attributes.items():
        given = scope.attributes.get(attribute.ref_attr_name or "") if attribute.is_ref() else attribute
        if given is not None:
            found[name] = given
    return found


def _visit_node(node: ir.Node, scope: _Scope, path: str, runs: Quantity) -> Visit:
    inputs = tuple(_tensor(value, scope) for value in node.inputs)
    call = Call(node.op_type, node.domain, path, inputs, _attributes(node, scope), len(node.outputs), scope.sizes)
    if node.op_type == "NonZero":
        call = dataclasses.replace(call, counted=_count_name(node, scope) or f"{path}.count")
    if node.op_type == "Conv":
        _assume_channels(call, scope.assumed)
    shapes, unknown = _infer_dims(call)
    outputs = []
    for index, value in enumerate(node.outputs):
        dims = shapes[index] if index < len(shapes) else _declared(value, scope.names)
        dtype = _dtype(call, index) or value.dtype
        tensor = Tensor(value.name or "", dtype, dims, unknown="" if dims is not None else unknown)
        if dims is not None:
            scope.sizes.update(dims)
            tensor = dataclasses.replace(tensor, elements=_infer_elements(call, dtype, dims, index))
        traced = trace(call, tensor)
        if (node.op_type, node.domain) == (DEQUANTIZE, DOMAIN) and not is_decoded_by_readers(value):
            traced = dataclasses.replace(traced, decoded=None)
        outputs.append(traced)
        scope.tensors[value] = outputs[-1]
    return Visit(node, call, tuple(outputs), path, runs)


def _declared(value: ir.Value, known: Set[str]) -> Dims | None:
    """The dimensions that the model states, if they are numbers and dimensions of its inputs."""
    if value.shape is None:
        return None
    dims: list[Quantity] = []
    for dim in value.shape:
        if not isinstance(dim, int) and dim.value is None:
            return None
        dims.append(dim if isinstance(dim, int) else parse(dim.value or "", known))
    return tuple(dims) if all(names(dim) <= known for dim in dims) else None


def _count_name(node: ir.Node, scope: _Scope) -> str | None:
    """What the number of tokens of an expert is called, if it is that which a NonZero counts.

    Taken to be even: each expert gets the same share of the choices.
    """
    value = node.inputs[0]
    maker = value.producer() if value is not None else None
    while maker is not None and maker.op_type in _ROUTES and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    if maker is None or maker.op_type != "OneHot":
        return None
    chosen, depth = _tensor(maker.inputs[0], scope), _tensor(maker.inputs[1], scope)
    top = maker.inputs[0].producer() if maker.inputs[0] is not None else None
    if chosen is None or depth is None or chosen.dims is None or not depth.elements or depth.elements[0] is None:
        return None
    if top is None or top.op_type != "TopK":
        return None
    share = ceil_divide(chosen.size, depth.elements[0])
    for index in itertools.count(1):
        name = TOKENS_PER_EXPERT if index == 1 else f"{TOKENS_PER_EXPERT}_{index}"
        if scope.assumed.setdefault(name, share) == share:
            return name
    return None


def _assume_channels(call: Call, assumed: dict[str, Quantity]) -> None:
    """The channels of an image are those that the weights of its first Conv have, whatever the model calls them."""
    image, weight = (*call.inputs, None, None)[:2]
    if image is None or weight is None or image.dims is None or weight.dims is None:
        return
    channels = image.dims[1]
    if not isinstance(channels, int) and channels.is_Symbol:
        assumed.setdefault(channels.name, multiply(weight.dims[1], call.value("group", 1)))


def _infer_dims(call: Call) -> tuple[list[Dims], str]:
    """The dimensions of each output, and why they are unknown."""
    rule = DIMS.get(call.op_type) if call.domain in DOMAINS else None
    operator = f"{call.domain}::{call.op_type}" if call.domain else call.op_type
    if rule is None:
        return [], f"what {operator} gives is not known"
    try:
        dims = rule(call)
    except UnknownError as unknown:
        return [], str(unknown)
    except MALFORMED as error:
        return [], f"{operator} {call.name} is not as ONNX defines it: {error}"
    return dims, ""


def _infer_elements(call: Call, dtype: ir.DataType | None, dims: Dims, index: int) -> Elements | None:
    if dtype not in _FOLLOWED or len(dims) > 1:
        return None
    rule = ELEMENTS.get(call.op_type) if call.domain == "" and index == 0 else None
    try:
        return rule(call, dims) if rule is not None else _unknown_elements(dtype, dims)
    except (UnknownError, *MALFORMED):
        return _unknown_elements(dtype, dims)


def _unknown_elements(dtype: ir.DataType | None, dims: Dims) -> Elements | None:
    size = product(dims)
    short = dtype in _FOLLOWED and len(dims) <= 1 and isinstance(size, int) and size <= LONGEST
    return (None,) * size if short and isinstance(size, int) else None


def _dtype(call: Call, index: int) -> ir.DataType | None:
    given = [None if each is None else each.dtype for each in call.inputs]
    first = given[0] if given else None
    if call.op_type in _BOOLEAN or (call.op_type == "Dropout" and index):
        return ir.DataType.BOOL
    if call.op_type in _INDICES or (call.op_type in ("MaxPool", "TopK") and index):
        return ir.DataType.INT64
    if call.op_type == "Cast":
        return ir.DataType(call.value("to", 0))
    if call.op_type == "ConstantOfShape":
        fill = call.attributes.get("value")
        return ir.DataType.FLOAT if fill is None else fill.as_tensor().dtype
    if call.op_type == QUANTIZE:
        return ir.DataType.UINT8
    if call.op_type == DEQUANTIZE:
        return ir.DataType.FLOAT
    if call.op_type == "QuantizeLinear":
        return given[2] if len(given) > 2 else ir.DataType.UINT8
    position = {"CastLike": 1, "DequantizeLinear": 1, "OneHot": 2, "Where": 1}.get(call.op_type, 0)
    return given[position] if position < len(given) else first
