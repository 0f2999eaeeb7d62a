"""What a model asks of hardware, counted from its graph: products, quantized elements, vector operations, bytes.

Everything is an exact expression in the model's symbolic dimensions (an int, or a SymPy expression), and no engine or
unit cost is known here. Rules:

1. **Products**: MatMul, Gemm, Einsum of two operands, Conv and MatMulBlock are ``batch`` independent products of
   ``[m, k]`` by ``[k, n]`` and ``batch * m * k * n`` multiply-accumulates. Weights without batch dimensions make one
   product of all rows. The formats of the operands are those they are decoded from, on the fly in MatMulBlock or
   by a DequantizeBlock that only moves lie between; else the type of the floats. A Conv counts ``k`` = channels of a
   group times the kernel.
2. **Quantized elements**: what QuantizeBlock reads, and A of a MatMulBlock that quantizes it.
3. **Vector operations**: see `mxcompile.cost.formulas`.
4. **Bytes** are those of tensors as stored, elements below a byte packed: constants apart from activations apart from
   the cache, codes apart from scales. What stands in the way of weights or of the cache to its reader and only arranges
   or picks elements (Transpose, Expand, Slice, ...) is free, and the reader counts what is stored, once: an engine
   addresses both in place. Appending to the cache reads and writes what is new. Of an embedding the rows that are
   looked up count. Shapes, axes and bounds of slices count nothing, nor do views (Reshape, Squeeze, ...).
5. What only reads constants runs once, when the model is loaded: 0.
6. Both branches of an ``If`` are counted; `Workload.at` keeps the one that runs. Bodies of model-local functions are
   counted in place of the call, but never those of this compiler's own operators.
7. An operator without a formula, or whose sizes do not follow from the graph, is in `uncovered`, never a silent 0.

Where a dimension depends on data, the tokens of each expert of a mixture, all experts are taken to get the same share
(`Workload.assumed`), unless a value is given.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import onnx_ir as ir
import sympy

from mxcompile.cost import quantities
from mxcompile.cost.formulas import VECTOR_OPS
from mxcompile.cost.kinds import PRODUCTS, VIEWS, Kind, attention_products, kind_of, norm_parts
from mxcompile.cost.origins import ARRANGES, PICKS
from mxcompile.cost.quantities import Quantity, add, multiply, product, symbol
from mxcompile.cost.shape_rules import broadcast_dims, einsum_terms
from mxcompile.cost.shapes import DOMAINS, MALFORMED, Visit, input_dims, visit
from mxcompile.cost.tensors import Call, Dims, Tensor, UnknownError
from mxcompile.errors import CostModelError
from mxcompile.formats import NONE
from mxcompile.ops import DEQUANTIZE, DOMAIN, MATMUL, QUANTIZE

USE_CACHE: Final = "use_cache_branch"
"""Input of merged decoders that chooses the branch, and the dimension that stands for it: 1 with a cache, else 0."""


@dataclasses.dataclass(frozen=True)
class NodeWork:
    """What one node asks for.

    Attributes:
        name: Its path: its name, behind those of the ``If`` and function calls that it is inside of; unique.
        op_type: Operator, without domain.
        kind: What it is for.
        a_format: Format of the left operand of a product: that of its blocks, or the type of its floats; else "".
        b_format: Format of the right operand.
        batch: Independent products; 0 if the node is no product, as `m`, `k`, `n` and `macs`.
        m: Rows of the left operand.
        k: Length of the sums.
        n: Columns of the right operand.
        macs: Multiply-accumulates.
        quantized: Elements that a quantizer reads.
        quantized_format: What they are quantized to, else "".
        vector_ops: Scalar operations beside products.
        weight_code_bytes: Bytes of constants: of codes, or of floats.
        weight_scale_bytes: Bytes of the scales of constants.
        input_bytes: Bytes of activations read.
        output_bytes: Bytes written; to the cache only what is new.
        cache_code_bytes: Bytes of the cache read: of codes, or of floats.
        cache_scale_bytes: Bytes of the cache's scales read.
        elements: Elements that it gives, as of `Uncovered`.
        runs: 1; in a branch of an ``If`` the dimension that stands for the condition, or 1 less it.
    """

    name: str
    op_type: str
    kind: Kind
    a_format: str = ""
    b_format: str = ""
    batch: Quantity = 0
    m: Quantity = 0
    k: Quantity = 0
    n: Quantity = 0
    macs: Quantity = 0
    quantized: Quantity = 0
    quantized_format: str = ""
    vector_ops: Quantity = 0
    weight_code_bytes: Quantity = 0
    weight_scale_bytes: Quantity = 0
    input_bytes: Quantity = 0
    output_bytes: Quantity = 0
    cache_code_bytes: Quantity = 0
    cache_scale_bytes: Quantity = 0
    elements: Quantity = 0
    runs: Quantity = 1


@dataclasses.dataclass(frozen=True)
class Uncovered:
    """A node that is not counted.

    Attributes:
        name: Its path, as in `NodeWork`.
        op_type: Operator, with its domain if that is not ONNX's.
        reason: Why.
        elements: Elements that it gives; 0 where even that is unknown, which the reason says.
        runs: As in `NodeWork`.
    """

    name: str
    op_type: str
    reason: str
    elements: Quantity = 0
    runs: Quantity = 1


@dataclasses.dataclass(frozen=True)
class Workload:
    """What all nodes ask for.

    Attributes:
        nodes: The counted ones, in the order they run.
        uncovered: The others.
        symbols: Names of the dimensions that occur, in the order of the inputs.
        inputs: The model's inputs and their dimensions.
        assumed: What dimensions are taken to be that no value is given for, in terms of others.
    """

    nodes: tuple[NodeWork, ...]
    uncovered: tuple[Uncovered, ...]
    symbols: tuple[str, ...]
    inputs: Mapping[str, Dims]
    assumed: Mapping[str, Quantity]

    def at(self, dims: Mapping[str, int]) -> "Workload":
        """The workload of a run with these dimensions; every quantity is an int.

        Args:
            dims: Sizes by name. `USE_CACHE` may be left out: it is 1 if a dimension called ``past...`` is not 0.

        Raises:
            CostModelError: A dimension that occurs is missing, an unknown one is given, or a value is impossible.
        """
        values = self._values(dims)
        known: dict[Quantity, int] = {}

        def number(value: Quantity) -> int:
            if value not in known:
                known[value] = quantities.evaluate(value, values)
            return known[value]

        nodes = [each for each in self.nodes if each.runs == 1 or number(each.runs)]
        uncovered = [each for each in self.uncovered if each.runs == 1 or number(each.runs)]
        return Workload(
            tuple(_evaluated(each, number) for each in nodes),
            tuple(dataclasses.replace(each, elements=number(each.elements), runs=1) for each in uncovered),
            (),
            {name: tuple(map(number, shape)) for name, shape in self.inputs.items()},
            {},
        )

    def _values(self, dims: Mapping[str, int]) -> dict[sympy.Symbol, sympy.Integer]:
        """What stands for each dimension."""
        for name, value in dims.items():
            if name not in self.symbols:
                known = ", ".join(self.symbols) or "none"
                raise CostModelError(f"dimension {name}: the model has no such dimension; it has {known}")
            if value < 0:
                raise CostModelError(f"dimension {name} = {value}: a dimension is at least 0")
        values = {symbol(name): sympy.Integer(value) for name, value in dims.items()}
        if USE_CACHE in self.symbols and USE_CACHE not in dims:
            cached = any(value for name, value in dims.items() if name.startswith("past"))
            values[symbol(USE_CACHE)] = sympy.Integer(int(cached))
        for name, share in self.assumed.items():
            if name not in dims:
                values[symbol(name)] = sympy.Integer(quantities.evaluate(share, values))
        return values


_QUANTITIES: Final = tuple(
    field.name
    for field in dataclasses.fields(NodeWork)
    if field.name not in ("name", "op_type", "kind", "runs") and not field.name.endswith("format")
)


def nodes_by_name(model: ir.Model) -> dict[str, ir.Node]:
    """The node of each name in `Workload.nodes` and `Workload.uncovered`; of those in a function the last call."""
    return {each.path: each.node for each in visit(model)}


def _evaluated(node: NodeWork, number: Callable[[Quantity], int]) -> NodeWork:
    numbers: dict[str, Any] = {name: number(getattr(node, name)) for name in _QUANTITIES}
    return dataclasses.replace(node, runs=1, **numbers)


def count(model: ir.Model) -> Workload:
    """Counts what a model asks for; the model is not changed.

    Args:
        model: A compiled model, or any other with ONNX's operators. Values of weights are not read.

    Raises:
        CostModelError: Nodes have not the inputs or attributes that ONNX asks for.
    """
    assumed: dict[str, Quantity] = {}
    try:
        attention, norms = attention_products(model), norm_parts(model)
    except MALFORMED as error:
        raise CostModelError(f"the model is not as ONNX defines it ({error}); onnx.checker says more") from error
    nodes: list[NodeWork] = []
    uncovered: list[Uncovered] = []
    for each in visit(model, assumed):
        try:
            nodes.append(_count_node(each, kind_of(each, attention, norms)))
        except UnknownError as error:
            uncovered.append(_uncovered(each, str(error)))
        except MALFORMED as error:
            uncovered.append(_uncovered(each, f"not as ONNX defines it: {error}"))
    inputs = input_dims(model)
    occurring = [dim for shape in inputs.values() for dim in shape]
    occurring += [getattr(node, name) for node in nodes for name in (*_QUANTITIES, "runs")]
    names = dict.fromkeys(name for each in dict.fromkeys(occurring) for name in sorted(quantities.names(each)))
    return Workload(tuple(nodes), tuple(uncovered), tuple(names), inputs, assumed)


def _uncovered(visit: Visit, reason: str) -> Uncovered:
    op_type = f"{visit.call.domain}::{visit.call.op_type}" if visit.call.domain else visit.call.op_type
    try:
        elements = _elements(visit)
    except UnknownError:
        elements = 0
        reason += "; so is the size of what it gives"
    return Uncovered(visit.path, op_type, reason, elements, visit.runs)


def _elements(visit: Visit) -> Quantity:
    """Elements that a node gives."""
    return quantities.total(each.size for each in visit.outputs if each.name)


def _count_node(visit: Visit, kind: Kind) -> NodeWork:
    """The work of a node.

    Raises:
        UnknownError: It has no formula, or a size does not follow from the graph.
    """
    call = visit.call
    formula = VECTOR_OPS.get(call.op_type) if call.domain in DOMAINS else None
    if formula is None:
        raise UnknownError(f"there is no formula for {call.op_type}")
    elements = _elements(visit)
    work = NodeWork(visit.path, call.op_type, kind, elements=elements, runs=visit.runs)
    if call.inputs and all(each is None or each.is_static for each in call.inputs):
        return work  # rule 5
    sizes: dict[str, Any] = _bytes(visit)
    work = dataclasses.replace(work, vector_ops=formula(visit), **sizes)
    if call.op_type in PRODUCTS:
        batch, m, k, n = _product_shape(visit)
        a_format, b_format = _product_formats(call)
        macs = product((batch, m, k, n))
        work = dataclasses.replace(work, batch=batch, m=m, k=k, n=n, macs=macs, a_format=a_format, b_format=b_format)
    quantized = call.value("a_format", NONE) if call.op_type == MATMUL else call.value("format", NONE)
    if call.op_type in (MATMUL, QUANTIZE) and quantized != NONE:
        work = dataclasses.replace(work, quantized=call.input(0).size, quantized_format=quantized)
    return work


def _product_shape(visit: Visit) -> tuple[Quantity, Quantity, Quantity, Quantity]:
    """``batch, m, k, n`` of a product."""
    call = visit.call
    a, b = call.dims(0), call.dims(1)
    if call.op_type == "Conv":
        group = call.value("group", 1)
        positions = product((visit.outputs[0].dims or ())[2:])
        return multiply(a[0], group), positions, product(b[1:]), quantities.divide_exactly(b[0], group)
    if call.op_type == "Gemm":
        rows, columns = visit.outputs[0].dims or ()
        return 1, rows, a[0] if call.value("transA", 0) else a[1], columns
    if call.op_type == "Einsum":
        return _einsum_shape(call)
    if call.op_type == MATMUL:
        n, k = b[-2], call.value("k", 0) or a[-1]
    else:
        n, k = b[-1] if len(b) > 1 else 1, a[-1]
    if len(b) <= 2:
        return 1, product(a[:-1]), k, n
    batch = product(broadcast_dims(a[:-2], b[:-2]))
    return batch, a[-2] if len(a) > 1 else 1, k, n


def _einsum_shape(call: Call) -> tuple[Quantity, Quantity, Quantity, Quantity]:
    terms, result, sizes = einsum_terms(call)
    if len(terms) != 2:
        raise UnknownError(f"there is no formula for an Einsum of {len(terms)} operands")
    left, right = map(set, terms)
    groups = (
        left & right & set(result),
        left - right,
        (left & right) - set(result),
        right - left,
    )
    batch, m, k, n = (product(sizes[letter] for letter in sorted(group)) for group in groups)
    return batch, m, k, n


_FLOATS: Final[Mapping[ir.DataType, str]] = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.DOUBLE: "float64",
}


def _product_formats(call: Call) -> tuple[str, str]:
    if call.op_type == MATMUL:
        a_format = call.value("a_format", NONE)
        return _format_of(call.input(0)) if a_format == NONE else a_format, call.value("b_format", NONE)
    return _format_of(call.input(0)), _format_of(call.input(1))


def _format_of(tensor: Tensor) -> str:
    if tensor.decoded is not None:
        return tensor.decoded.format
    if tensor.dtype is None:
        raise UnknownError(f"the type of {tensor.name} does not follow from the graph")
    return _FLOATS.get(tensor.dtype, tensor.dtype.name.lower())


_DATA_INPUTS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("ConstantOfShape", "Range", "Shape", "Size"), 0),
    **dict.fromkeys(("CumSum", "Expand", "OneHot", "Pad", "Slice", "Split", "Tile", "TopK", *ARRANGES), 1),
}
"""How many inputs hold data, where others say what is to be done with it; of Reduce... one too, of the rest all."""


def _bytes(visit: Visit) -> dict[str, Quantity]:
    """Rule 4."""
    call = visit.call
    if call.op_type in VIEWS or _is_in_place(visit):
        return {}
    given = [each for each in call.inputs[: _data_inputs(call)] if each is not None]
    if call.op_type == "Concat" and visit.outputs[0].origin == "cache":
        new = quantities.total(each.nbytes for each in given if each.origin != "cache")
        return {"input_bytes": new, "output_bytes": new}
    found: dict[str, Quantity] = {"output_bytes": _total_bytes(each for each in visit.outputs if each.name)}
    if call.op_type in PICKS | {"GatherElements", "GatherND"}:
        read = found["output_bytes"]
        key = "weight_code_bytes" if given[0].origin == "constant" else "input_bytes"
        positions = _total_bytes(each for each in given[1:] if each.origin != "constant")
        found[key] = read
        found["input_bytes"] = add(found.get("input_bytes", 0), positions)
        return found
    for key, tensor in dict.fromkeys(_reads(call, given)):
        found[key] = add(found.get(key, 0), tensor.nbytes)
    return found


def _data_inputs(call: Call) -> int:
    return 1 if call.op_type.startswith("Reduce") else _DATA_INPUTS.get(call.op_type, len(call.inputs))


def _total_bytes(tensors: Iterable[Tensor]) -> Quantity:
    return quantities.total(each.nbytes for each in tensors)


def _is_in_place(visit: Visit) -> bool:
    """Whether the reader of what the node gives looks through it, and counts what is stored instead."""
    result = visit.outputs[0]
    if visit.call.domain == DOMAIN and visit.call.op_type == DEQUANTIZE:
        return result.decoded is not None
    moves = visit.call.domain == "" and visit.call.op_type in ARRANGES | PICKS
    return moves and (result.origin != "activation" or result.decoded is not None)


def _reads(call: Call, given: Iterable[Tensor]) -> Iterable[tuple[str, Tensor]]:
    """Which tensors are read, and what their bytes count as."""
    scales = call.inputs[2] if call.op_type == MATMUL and call.domain == DOMAIN else None
    for tensor in given:
        if tensor.decoded is not None:
            yield _counted_as(tensor.decoded.codes, "code"), tensor.decoded.codes
            yield _counted_as(tensor.decoded.scales, "scale"), tensor.decoded.scales
        else:
            yield _counted_as(tensor, "scale" if tensor is scales else "code"), tensor.stored


def _counted_as(tensor: Tensor, part: str) -> str:
    return {"activation": "input_bytes", "constant": f"weight_{part}_bytes", "cache": f"cache_{part}_bytes"}[
        tensor.origin
    ]
