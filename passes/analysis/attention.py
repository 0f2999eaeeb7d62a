"""Finds attention: a Softmax between two products of activations, queries times keys and probabilities times values."""

import collections
import dataclasses
import posixpath
from collections.abc import Iterable
from typing import Final

import onnx_ir as ir

from mxcompile.ops import DEQUANTIZE, DOMAIN, QUANTIZE
from mxcompile.passes.analysis.roles import find_rotary
from mxcompile.passes.analysis.values import Shapes
from mxcompile.passes.rewriting import all_graphs, is_constant, producer

NO_SOFTMAX: Final = "both operands are activations, but no Softmax reads or makes them: no attention"
ON_THE_RIGHT: Final = "its probabilities are the right operand; only probabilities @ values is followed"
UNKNOWN_RANK: Final = "how many dimensions its keys and values have does not follow from the graph: no attention"

FUSED: Final = "one operator for a whole attention, whose products cannot be quantized; export without fused operators"
EINSUM: Final = "an Einsum of activations: only products written as MatMul are followed"

_FUSED: Final = frozenset(
    {"Attention", "DecoderMaskedMultiHeadAttention", "GroupQueryAttention", "MultiHeadAttention", "PagedAttention"}
)
"""Operators of onnxruntime that stand for a whole attention."""

_MASKS: Final = frozenset({"Add", "Clip", "Concat", "Div", "Max", "Min", "Mul", "Sub", "Tanh", "Where"})
"""Operators that mask, scale or cap scores."""

_GUARDS: Final = frozenset({"Div", "Dropout", "Mul", "Slice", "Where"})
"""Operators that guard or scale probabilities, or cut off what is no token."""

_MOVES: Final = frozenset({"Cast", DEQUANTIZE, "Identity", QUANTIZE, "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that keep rows of scores or probabilities as they are."""

_MATRIX: Final = 2
"""Dimensions of a matrix, the fewest that keys and values have."""

_STORED: Final = _MOVES | {
    *("DequantizeLinear", "Mul", "Slice", "Split", "Transpose"),
}
"""Operators between a weight and the product that reads it."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """A factor of the scores on the side of queries or keys.

    Attributes:
        value: One element, in the graph's float type.
        divides: Whether it is a divisor.
    """

    value: ir.Value
    divides: bool


@dataclasses.dataclass(frozen=True)
class Operand:
    """Keys or values, each token a row of features: ``[..., tokens, head_dim]``.

    Attributes:
        source: Where they come from: after rotary angles, before scaling and before grouped heads are repeated. In a
            decoder the tensor of the cache, ``present.N.key`` or ``present.N.value``.
        rank: How many dimensions it has.
        perm: What transposes the source to rows; None if it holds rows.
        repeated: The source with each head repeated for its group of queries, ``[batch, heads * groups, tokens,
            head_dim]``; None where no heads are grouped.
    """

    source: ir.Value
    rank: int
    perm: tuple[int, ...] | None = None
    repeated: ir.Value | None = None


@dataclasses.dataclass(frozen=True)
class Attention:
    """An attention: ``Softmax(mask(q @ k^T * scales)) @ v``.

    Attributes:
        softmax: The Softmax.
        qk: The MatMul of queries and keys.
        pv: The MatMul of probabilities and values.
        layer: Its path in the model, such as ``/model/layers.0/self_attn``; one attention a graph has it, but both
            branches of an ``If`` may hold the same one.
        q: Queries ``[..., heads, queries, head_dim]``, after rotary angles and before scaling.
        k: Keys.
        p: Probabilities ``[..., heads, queries, tokens]``, after the guards against rows without a token.
        v: Values.
        scales: Factors of the scores that stand on the side of queries or keys; those behind qk are not among them.
    """

    softmax: ir.Node
    qk: ir.Node
    pv: ir.Node
    layer: str
    q: ir.Value
    k: Operand
    p: ir.Value
    v: Operand
    scales: tuple[Scale, ...]


@dataclasses.dataclass(frozen=True)
class Unrecognized:
    """A product of activations that belongs to no attention which the passes can quantize.

    Attributes:
        node: The MatMul or Einsum, or the operator that holds such products.
        reason: Why, in words for the user.
    """

    node: ir.Node
    reason: str


def find_attention(model: ir.Model) -> list[Attention]:
    """The attentions of the main graph and its subgraphs, in graph order.

    1. Between qk and the Softmax, along the last axis, scores are only masked, scaled, capped, cast or reshaped;
       between the Softmax and pv, probabilities are only guarded, scaled, cast, cut or reshaped.
    2. Products that make rotary angles belong to no attention, nor do products with weights: routers.
    3. On the side of keys, scaling by scalars, Transposes and the repetition of grouped heads are looked through, for
       values the repetition, for queries the scaling. What stands behind anything else is not searched.
    """
    return _search(model)[0]


def find_unrecognized(model: ir.Model) -> list[Unrecognized]:
    """The products of activations that belong to no attention and make no rotary angles, with the reasons.

    Also operators that hold such products: Einsum, and onnxruntime's for a whole attention.
    """
    return _search(model)[1]


def _search(model: ir.Model) -> tuple[list[Attention], list[Unrecognized]]:
    rotary = find_rotary(model)
    shapes = Shapes()
    found: list[Attention] = []
    unrecognized: list[Unrecognized] = []
    for graph in all_graphs(model):
        products = [node for node in graph if _multiplies_activations(node) and node not in rotary]
        here: list[Attention] = []
        reasons = dict.fromkeys(products, NO_SOFTMAX)
        others = {node: reason for node in graph if (reason := _closed(node)) is not None}
        for softmax in [node for node in graph if (node.op_type, node.domain) == ("Softmax", "")] if products else []:
            scores = [node for node in _products_behind(softmax) if node in reasons]
            contexts = {node: index for node, index in _products_ahead(softmax).items() if node in reasons}
            result = _attention(softmax, scores, contexts, shapes)
            if isinstance(result, str):
                reasons.update(dict.fromkeys([*scores, *contexts], result))
            elif result is not None:
                here.append(result)
        found += _named(here)
        known = {node for attention in here for node in (attention.qk, attention.pv)}
        unknown = {node: reason for node, reason in reasons.items() if node not in known}
        unrecognized += [Unrecognized(node, reason) for node, reason in (unknown | others).items()]
    return found, unrecognized


def _closed(node: ir.Node) -> str | None:
    """Why the products inside an operator cannot be seen; None if there are none."""
    if node.op_type in _FUSED and node.domain in ("", "com.microsoft"):
        return FUSED
    operands = [value for value in node.inputs if not _is_weight(value)]
    return EINSUM if (node.op_type, node.domain) == ("Einsum", "") and len(operands) > 1 else None


def _multiplies_activations(node: ir.Node) -> bool:
    """Whether the node is a MatMul of which neither operand is a weight, however that is stored."""
    is_product = (node.op_type, node.domain) == ("MatMul", "")
    return is_product and not any(_is_weight(value) for value in node.inputs)


def _is_weight(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    if node is None:
        return is_constant(value)
    if node.op_type == "Mul":
        return all(_is_weight(each) for each in node.inputs)
    return node.op_type == "Constant" or (node.op_type in _STORED and _is_weight(node.inputs[0]))


def _beside(node: ir.Node, softmax: ir.Node) -> bool:
    """Whether a node is in the graph of the Softmax, and one of ONNX's operators or a quantizer."""
    return node.graph is softmax.graph and node.domain in ("", DOMAIN)


def _products_behind(softmax: ir.Node) -> list[ir.Node]:
    """The MatMuls whose results reach the Softmax as scores, in the same graph."""
    found: dict[ir.Node, None] = {}
    seen: set[ir.Value] = set()
    waiting = [softmax.inputs[0]]
    while waiting:
        value = waiting.pop()
        node = value.producer() if value is not None else None
        if value is None or value in seen or node is None or not _beside(node, softmax):
            continue
        seen.add(value)
        if node.op_type == "MatMul":
            found[node] = None
        elif node.op_type in _MASKS:
            waiting += node.inputs[1 if node.op_type == "Where" else 0 :]
        elif node.op_type in _MOVES:
            waiting.append(node.inputs[0])
    return list(found)


def _products_ahead(softmax: ir.Node) -> dict[ir.Node, int]:
    """The MatMuls that read the probabilities, in the same graph, and which of their operands those are."""
    found: dict[ir.Node, int] = {}
    seen: set[ir.Value] = set()
    waiting = [softmax.outputs[0]]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        for node, index in value.uses():
            if not _beside(node, softmax):
                continue
            if node.op_type == "MatMul":
                found[node] = index
            elif node.op_type in _MOVES | _GUARDS:
                waiting.append(node.outputs[0])
    return found


def _attention(
    softmax: ir.Node, scores: list[ir.Node], contexts: dict[ir.Node, int], shapes: Shapes
) -> Attention | str | None:
    """The attention around a Softmax; why its products are none; None if there are no products."""
    name = softmax.name or softmax.outputs[0].name
    if not scores or not contexts:
        if not scores and not contexts:
            return None
        return (
            f"Softmax {name} reads it, but no product of activations reads the probabilities: no attention"
            if scores
            else f"it reads probabilities of Softmax {name}, but no product of activations makes the scores"
        )
    if len(scores) > 1 or len(contexts) > 1:
        names = ", ".join(str(node.name) for node in [*scores, *contexts])
        return f"Softmax {name} stands between {len(scores)} and {len(contexts)} products, not two: {names}"
    (qk,), ((pv, index),) = scores, contexts.items()
    shape = shapes.dims(softmax.inputs[0]) or shapes.dims(qk.outputs[0])
    axis = softmax.attributes.get_int("axis", -1)
    if axis != -1 and (shape is None or axis != len(shape) - 1):
        return f"Softmax {name} is along axis {axis}, which is not known to be the last: no attention"
    if index != 0:
        return ON_THE_RIGHT
    q, q_scales = _unscaled(qk.inputs[0], shapes)
    k, k_scales = _keys(qk, shapes)
    p = pv.inputs[0]
    v = _ungrouped(p, pv.inputs[1], shapes)
    if k is None or v is None:
        return UNKNOWN_RANK
    assert p is not None  # both operands of a MatMul are required
    return Attention(softmax, qk, pv, "", q, k, p, v, (*q_scales, *k_scales))


def _unscaled(value: ir.Value | None, shapes: Shapes) -> tuple[ir.Value, tuple[Scale, ...]]:
    """The value before it was multiplied with scalars, and these."""
    assert value is not None
    scales: list[Scale] = []
    while (step := _scaling(value, shapes)) is not None:
        value, scale = step
        scales += [scale] if scale is not None else []
    return value, tuple(scales)


def _scaling(value: ir.Value, shapes: Shapes) -> tuple[ir.Value, Scale | None] | None:
    """What an Identity or a multiplication with a scalar makes the value of, and the scalar."""
    node = value.producer()
    if node is None or node.domain != "" or node.op_type not in ("Div", "Identity", "Mul"):
        return None
    if node.op_type == "Identity":
        return (node.inputs[0], None) if node.inputs[0] is not None else None
    first, second = node.inputs
    if first is None or second is None:
        return None
    if shapes.is_scalar(second):
        return first, Scale(second, node.op_type == "Div")
    return (second, Scale(first, divides=False)) if node.op_type == "Mul" and shapes.is_scalar(first) else None


def _keys(qk: ir.Node, shapes: Shapes) -> tuple[Operand | None, tuple[Scale, ...]]:
    """The keys, None if it is not known how many dimensions they have, and their scales."""
    value, scales = _unscaled(qk.inputs[1], shapes)
    perm: tuple[int, ...] = ()
    while True:
        transpose = producer(value, "Transpose")
        if transpose is None or transpose.inputs[0] is None or "perm" not in transpose.attributes:
            break
        step = transpose.attributes["perm"].as_ints()
        perm = tuple(step[axis] for axis in perm) or tuple(step)
        value, more = _unscaled(transpose.inputs[0], shapes)
        scales += more
    rank = len(perm) or len(shapes.dims(value) or ())
    if rank < _MATRIX:
        return None, scales
    order = perm or tuple(range(rank))
    rows = (*order[:-2], order[-1], order[-2])
    if rows != tuple(range(rank)):
        return Operand(value, rank, rows), scales
    return _ungrouped(qk.inputs[0], value, shapes), scales


def _without_identities(value: ir.Value) -> ir.Value:
    while (node := producer(value, "Identity")) is not None and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _ungrouped(left: ir.Value | None, value: ir.Value | None, shapes: Shapes) -> Operand | None:
    """Rows, looking through the repetition of grouped heads, ``Reshape(Expand(Unsqueeze(source, 2)))``.

    Only of four dimensions on both sides, and where nothing known contradicts ``[b, h, t, d]`` becoming
    ``[b, h * groups, t, d]``, each head standing ``groups`` times in a row. None if it is not known how many
    dimensions the rows have.
    """
    assert value is not None  # both operands of a MatMul are required
    value = _without_identities(value)
    rank = len(shapes.dims(value) or ())
    plain = Operand(value, rank) if rank >= _MATRIX else None
    reshape = producer(value, "Reshape")
    expand = producer(reshape.inputs[0], "Expand") if reshape is not None else None
    unsqueeze = producer(expand.inputs[0], "Unsqueeze") if expand is not None else None
    if reshape is None or expand is None or unsqueeze is None or unsqueeze.inputs[0] is None:
        return plain
    source = _without_identities(unsqueeze.inputs[0])
    shape = shapes.dims(source) or [None] * 4
    expanded, merged = shapes.elements(expand.inputs[1]), shapes.elements(reshape.inputs[1])
    if expanded is None or merged is None or (len(shape), len(expanded), len(merged)) != (4, 5, 4):
        return plain
    groups, others = expanded[2], [*expanded[:2], *expanded[3:]]
    batch = shape[0] if merged[0] == 0 else merged[0]
    axis = shapes.elements(unsqueeze.inputs[1])
    if axis not in ([2], [-3]) or groups is None or groups < 2 or len(shapes.dims(left) or ()) != 4:
        return plain
    heads = None if shape[1] is None else shape[1] * groups
    kept = all(new in (None, 1, -1, old) for new, old in zip(others, shape, strict=True))
    wanted = zip([batch, *merged[1:]], [shape[0], heads, *shape[2:]], strict=True)
    joined = all(new in (None, -1, old) or (old is None and new != 0) for new, old in wanted)
    return Operand(source, 4, repeated=value) if kept and joined else plain


def _named(attentions: Iterable[Attention]) -> list[Attention]:
    """The attentions of one graph with their layers: the path that their nodes share, else the Softmax's name.

    The first of these that no other one shares; value names are unique.
    """
    found = list(attentions)
    paths = [_common_path(attention) for attention in found]
    counts = collections.Counter(paths)
    names = collections.Counter(attention.softmax.name for attention in found)
    chosen = []
    for attention, path in zip(found, paths, strict=True):
        name = attention.softmax.name
        fallback = name if name and names[name] == 1 else attention.softmax.outputs[0].name or ""
        layer = path if path and counts[path] == 1 else fallback
        chosen.append(dataclasses.replace(attention, layer=layer))
    return chosen


def _common_path(attention: Attention) -> str:
    names = [node.name for node in (attention.softmax, attention.qk, attention.pv) if node.name]
    if not names or not all(name.startswith("/") for name in names):
        return ""
    path = posixpath.commonpath([posixpath.dirname(name) for name in names])
    return "" if path == "/" else path
