"""One graph that holds every selected product twice, in float and quantized, and takes the choice as an input.

So one session tells what each product's quantization does, without a compilation and a session for each.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from mxcompile.config import CompileConfig
from mxcompile.errors import UnsupportedModelError
from mxcompile.ops import MATMUL
from mxcompile.passes import (
    AttachFunctions,
    FuseMatMulBlock,
    InsertAttention,
    InsertQuantize,
    NormalizeLinears,
    PackWeights,
    SelectFormats,
)
from mxcompile.passes.analysis.values import constant
from mxcompile.passes.metadata import ACTIVATIONS, ATTENTION, LAYER, WEIGHTS
from mxcompile.passes.rewriting import UniqueNames, all_graphs

SWITCHES: Final = "mxcompile.switches"
"""Input, bool ``[products]``: which products are quantized."""

MEASURE: Final = "mxcompile.measure"
"""Input, bool scalar: compute every product in both ways, give float results on, and fill `POWERS`."""

POWERS: Final = "mxcompile.powers"
"""Output, float64 ``[products, 2]``: sums of squares of a product's float result, and of its quantization error, both
on the same float inputs; zeros unless `MEASURE` is set."""

_DOMAIN: Final = "mxcompile.evaluation"
_POWERS_BODY: Final = f"""
<domain: "{_DOMAIN}", opset_import: ["" : 21]>
Powers (plain, quantized) => (powers) {{
    wide = Cast<to = 1>(plain)
    other = Cast<to = 1>(quantized)
    noise = Sub(other, wide)
    last = Constant<value_ints = [-1]>()
    one = Constant<value_ints = [1]>()
    signal_rows = ReduceSumSquare<keepdims = 0>(wide, last)
    noise_rows = ReduceSumSquare<keepdims = 0>(noise, last)
    signal_wide = Cast<to = 11>(signal_rows)
    noise_wide = Cast<to = 11>(noise_rows)
    signal_sum = ReduceSum<keepdims = 0>(signal_wide)
    noise_sum = ReduceSum<keepdims = 0>(noise_wide)
    signal_one = Reshape(signal_sum, one)
    noise_one = Reshape(noise_sum, one)
    powers = Concat<axis = 0>(signal_one, noise_one)
}}
"""
"""Rows are summed in float32, without a copy of the operands in float64, and their sums in float64."""


@dataclasses.dataclass(frozen=True)
class Switch:
    """A product that can be switched.

    Attributes:
        layer: Its path, as patterns of the settings name it.
        weights: Format of the weights, or of keys or values.
        activations: Format of the other operand.
        attention: ``qk``, ``pv``, or None for a linear layer.
        elements: Weights of a linear layer; 0 of an attention product.
    """

    layer: str
    weights: str
    activations: str
    attention: str | None
    elements: int


@dataclasses.dataclass(frozen=True)
class _Product:
    """A product in both graphs, and what its branches are made of.

    Attributes:
        switch: What it is.
        end: Name of the value that both branches give.
        chain: Nodes of the float graph from the product to `end`.
        quantized: Nodes of the compiled graph that compute `end` from values of the float graph, in order.
        captured: Names of these values.
    """

    switch: Switch
    end: str
    chain: tuple[ir.Node, ...]
    quantized: tuple[ir.Node, ...]
    captured: frozenset[str]


def switchable(model: ir.Model, config: CompileConfig) -> tuple[Switch, ...]:
    """Makes a model one in which every product that the settings select can be switched.

    It gets inputs `SWITCHES` and `MEASURE` and an output `POWERS`.

    1. The float graph is taken through normalize-linears and select-formats, a copy of it through the other passes of
       the compiler, except pack-cache (a packed cache holds the same values). Where both graphs have a value of the
       same name, it is the same value.
    2. Of a product, the compiled graph's nodes between such values become the branch of an ``If`` that quantizes, with
       codes and scales; the float graph's nodes become the other branch. A constant bias or factor behind the product
       belongs to both, so that onnxruntime fuses as it would outside.
    3. Nodes in front of the product that only its float branch needs go into that branch: scaled, transposed or
       repeated keys, which the quantized branch does not read. So onnxruntime can fuse them too, and does not compute
       them in vain.
    4. With `MEASURE`, the quantizing branch computes the float result too, gives that, and compares.

    Args:
        model: The model; it is changed.
        config: The settings; `kv_cache` does not matter.

    Returns:
        The products in the order of the switches.

    Raises:
        ConfigError: A pattern that matches nothing.
        UnsupportedModelError: Nothing is selected, or a product in a subgraph.
    """
    for each in (NormalizeLinears(), SelectFormats(config)):
        apply_pass(each, model)
    compiled = model.clone()
    for other in (InsertQuantize(), InsertAttention(config.kv_blocking), PackWeights(), FuseMatMulBlock()):
        apply_pass(other, compiled)
    products = _products(model, compiled)
    _Switcher(model, products).build()
    apply_pass(AttachFunctions(), model)
    return tuple(product.switch for product in products)


def apply_pass(each: Any, model: ir.Model) -> None:
    """Runs a pass; an error on purpose comes out as it is."""
    try:
        each(model)
    except ir.passes.PassError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def _key(node: ir.Node) -> tuple[str, str | None] | None:
    """What tells a selected product in both graphs; None of any other node."""
    metadata = node.metadata_props
    if WEIGHTS not in metadata or node.op_type not in ("MatMul", MATMUL):
        return None
    return metadata[LAYER], metadata.get(ATTENTION)


def _products(model: ir.Model, compiled: ir.Model) -> list[_Product]:
    """Every selected product, in graph order."""
    values = _values(model.graph)
    quantized = {key: node for node in compiled.graph if (key := _key(node)) is not None}
    positions = {node: index for index, node in enumerate(compiled.graph)}
    products = []
    for graph in all_graphs(model):
        for node in graph:
            key = _key(node)
            if key is None:
                continue
            if graph is not model.graph:
                raise UnsupportedModelError(
                    f"{key[0]}: lies in a branch of the graph; sensitivity switches products of the main graph only: "
                    "leave it out with --exclude"
                )
            products.append(_product(node, quantized[key], values, positions))
    return products


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    """All values of a graph by name, without those of its subgraphs."""
    found = [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]
    return {value.name: value for value in found if value.name}


def _product(
    node: ir.Node, quantized: ir.Node, values: Mapping[str, ir.Value], positions: Mapping[ir.Node, int]
) -> _Product:
    """Rules 1 and 2 for one product."""
    inside = dict.fromkeys(_chain(quantized, values))
    end = next(reversed(inside)).outputs[0].name
    assert end is not None  # by _chain
    chain = [node]
    while chain[-1].outputs[0].name != end:
        ((reader, _),) = chain[-1].outputs[0].uses()
        chain.append(reader)
    captured = set()
    waiting = list(inside)
    while waiting:
        for value in waiting.pop().inputs:
            producer = value.producer() if value is not None else None
            if value is None or producer in inside:
                continue
            if value.name in values:
                captured.add(value.name or "")
            elif producer is not None:
                inside[producer] = None
                waiting.append(producer)
    metadata = node.metadata_props
    switch = Switch(
        layer=metadata[LAYER],
        weights=metadata[WEIGHTS],
        activations=metadata[ACTIVATIONS],
        attention=metadata.get(ATTENTION),
        elements=0 if ATTENTION in metadata else _elements(node.inputs[1]),
    )
    ordered = tuple(sorted(inside, key=positions.__getitem__))
    return _Product(switch, end, tuple(chain), ordered, frozenset(captured))


def _elements(weight: ir.Value | None) -> int:
    """Elements of a linear layer's weight, seen through a Transpose."""
    while weight is not None and weight.const_value is None and (maker := weight.producer()) is not None:
        weight = maker.inputs[0]
    return 0 if weight is None or weight.const_value is None else weight.const_value.size


def _chain(product: ir.Node, values: Mapping[str, ir.Value]) -> list[ir.Node]:
    """Rule 2: the product in the compiled graph, what the passes put behind it, a bias and a factor."""
    chain = [product]
    while True:
        result = chain[-1].outputs[0]
        uses = list(result.uses())
        reader = uses[0][0] if len(uses) == 1 and not result.is_graph_output() else None
        if result.name in values and (reader is None or reader.graph is not product.graph or not _is_constant(reader)):
            return chain
        assert reader is not None  # the passes end with a value of the float graph
        chain.append(reader)


def _is_constant(node: ir.Node) -> bool:
    """Whether a node adds or multiplies a constant of one axis at most."""
    if (node.op_type in ("Add", "Mul", "Div")) and node.domain == "":
        arrays = [constant(value) for value in node.inputs]
        return any(array is not None and array.ndim <= 1 for array in arrays)
    return False


class _Switcher:
    """Puts an If in the place of every product."""

    def __init__(self, model: ir.Model, products: Sequence[_Product]) -> None:
        self._model = model
        self._graph = model.graph
        self._products = products
        self._names = UniqueNames(model)
        self._positions = {node: index for index, node in enumerate(model.graph)}
        self._captured = frozenset[str]().union(*(product.captured for product in products))
        self._fixed = {node for product in products for node in product.chain}

    def build(self) -> None:
        """All of it: inputs, Ifs, output."""
        count = len(self._products)
        switches = ir.Value(name=SWITCHES, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([count]))
        measure = ir.Value(name=MEASURE, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
        self._graph.inputs.extend([switches, measure])
        either = ir.node("Or", [switches, measure])
        chosen = ir.node("Split", [either.outputs[0]], {"axis": 0, "num_outputs": count}, num_outputs=count)
        front = [self._named(node, "mxcompile.switch") for node in (either, chosen)]
        first = next(iter(self._graph))
        self._graph.insert_before(first, front)
        powers = [self._switch(product, chosen.outputs[index], measure) for index, product in enumerate(self._products)]
        shape = ir.node("Constant", [], {"value_ints": [count, 2]})
        joined = ir.node("Concat", powers, {"axis": 0})
        result = ir.node("Reshape", [joined.outputs[0], shape.outputs[0]])
        self._graph.extend([self._named(node, "mxcompile.powers") for node in (shape, joined, result)])
        output = result.outputs[0]
        output.name, output.type, output.shape = POWERS, ir.TensorType(ir.DataType.DOUBLE), ir.Shape([count, 2])
        self._graph.outputs.append(output)
        function = ir.from_proto(onnx.parser.parse_function(_POWERS_BODY))
        assert isinstance(function, ir.Function)
        self._model.functions[function.identifier()] = function
        self._model.opset_imports[_DOMAIN] = 1

    def _switch(self, product: _Product, chosen: ir.Value, measure: ir.Value) -> ir.Value:
        """Rules 2 to 4 for one product; its two powers."""
        plain = self._float_nodes(product)
        values = _values(self._graph)
        old = values[product.end]
        moved = {output.name for node in plain for output in node.outputs}
        outer = {name: value for name, value in values.items() if name not in moved}
        name = product.switch.layer

        quantized, initializers, result = self._copy(product.quantized, product.end, outer, f"{name}.on")
        measured, _, compared = self._copy(plain, product.end, outer, f"{name}.measured")
        measure_both = ir.node("Powers", [compared, result], domain=_DOMAIN)
        same = ir.node("Identity", [result])
        inner = ir.node(
            "If",
            [measure],
            {
                "then_branch": self._branch(
                    [*measured, self._named(measure_both, name)], compared, measure_both.outputs[0]
                ),
                "else_branch": self._branch([self._named(same, name)], same.outputs[0], None),
            },
            num_outputs=2,
        )
        y, powers = inner.outputs
        on = self._branch([*quantized, self._named(inner, name)], y, powers, initializers)
        floats, _, kept = self._copy(plain, product.end, outer, f"{name}.off")
        branches = {"then_branch": on, "else_branch": self._branch(floats, kept, None)}
        switch = self._named(ir.node("If", [chosen], branches, num_outputs=2), name)
        self._graph.insert_after(product.chain[-1], switch)
        new = switch.outputs[0]
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self._graph.remove(reversed(plain), safe=True)
        new.name = product.end
        return switch.outputs[1]

    def _float_nodes(self, product: _Product) -> list[ir.Node]:
        """Rule 3: the chain and the nodes in front of it that nobody else needs, in graph order."""
        inside = dict.fromkeys(product.chain)
        waiting = list(product.chain)
        while waiting:
            for value in waiting.pop().inputs:
                producer = value.producer() if value is not None else None
                if producer is None or producer in inside or not self._movable(producer, inside):
                    continue
                inside[producer] = None
                waiting += [producer, *inside]  # A shared node may be exclusive now.
        return sorted(inside, key=self._positions.__getitem__)

    def _movable(self, node: ir.Node, inside: Mapping[ir.Node, None]) -> bool:
        """Whether only nodes inside read what the node makes, and no branch of a product does."""
        if node not in self._positions or node in self._fixed or node.domain != "":
            return False
        if any(each.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for each in node.attributes.values()):
            return False
        return all(
            output.name not in self._captured
            and not output.is_graph_output()
            and all(reader in inside for reader, _ in output.uses())
            for output in node.outputs
        )

    def _copy(
        self, nodes: Sequence[ir.Node], end: str, outer: Mapping[str, ir.Value], suffix: str
    ) -> tuple[list[ir.Node], list[ir.Value], ir.Value]:
        """Copies of nodes for a branch; the initializers that are not the outer graph's; the copy of the end."""
        values: dict[ir.Value, ir.Value] = {}
        copies, initializers = [], list[ir.Value]()
        for node in nodes:
            for value in node.inputs:
                if value is None or value in values:
                    continue
                if value.name is not None and value.name in outer:
                    values[value] = outer[value.name]
                else:
                    assert value.const_value is not None, value.name
                    values[value] = self._like(value, suffix)
                    values[value].const_value = value.const_value
                    initializers.append(values[value])
            copy = ir.Node(
                node.domain,
                node.op_type,
                [value and values[value] for value in node.inputs],
                list(node.attributes.values()),
                outputs=[self._like(output, suffix) for output in node.outputs],
                name=self._names.take_for_node(f"{node.name}.{suffix}"),
                metadata_props=dict(node.metadata_props),
            )
            values |= zip(node.outputs, copy.outputs, strict=True)
            copies.append(copy)
        return copies, initializers, next(new for old, new in values.items() if old.name == end)

    def _like(self, value: ir.Value, suffix: str) -> ir.Value:
        """A value of another name, with the same type and shape."""
        return ir.Value(name=self._names.take(f"{value.name}.{suffix}"), type=value.type, shape=value.shape)

    def _branch(
        self, nodes: Sequence[ir.Node], y: ir.Value, powers: ir.Value | None, initializers: Iterable[ir.Value] = ()
    ) -> ir.Graph:
        """A branch that gives a result and its powers; zeros if it does not measure."""
        added = []
        if powers is None:
            added = [self._named(ir.node("Constant", [], {"value": ir.tensor(np.zeros(2))}), f"{y.name}.powers")]
            powers = added[0].outputs[0]
        powers.type, powers.shape = ir.TensorType(ir.DataType.DOUBLE), ir.Shape([2])
        return ir.Graph(
            [], [y, powers], nodes=[*nodes, *added], initializers=list(initializers), name=f"{y.name}.graph"
        )

    def _named(self, node: ir.Node, name: str) -> ir.Node:
        """The node, with names of its own and of its outputs."""
        node.name = self._names.take_for_node(f"{name}.{node.op_type}")
        for output in node.outputs:
            output.name = self._names.take(f"{name}.{node.op_type.lower()}")
        return node
