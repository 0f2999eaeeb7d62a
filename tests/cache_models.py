"""Attention over a key-value cache, as insert-attention leaves it, and what it takes to run it step by step."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from mxcompile.graph_writer import GraphWriter
from mxcompile.kv_cache import Axis, empty_cache, present_of
from mxcompile.ops import DEQUANTIZE, DOMAIN, QUANTIZE
from mxcompile.passes import AttachFunctions
from mxcompile.runtime import create_session

Array = npt.NDArray[Any]
BATCH, KV_HEADS, GROUPS, HEAD_DIM = 2, 2, 2, 40
"""HEAD_DIM is no multiple of a block: keys have a ragged block too."""


@dataclasses.dataclass(frozen=True)
class AttentionGraph:
    """Settings of `attention`."""

    key: str = "amxfp4"
    value: str = "amxfp4"
    axis: Axis = "sequence"
    layers: int = 1
    dtype: ir.DataType = ir.DataType.FLOAT


def _quantized(op: GraphWriter, x: ir.Value, fmt: str, size: int) -> ir.Value:
    packed = op.op_multi_out(QUANTIZE, [x], {"format": fmt, "axis": -1}, num_outputs=2, domain=DOMAIN)
    return op.op(DEQUANTIZE, packed, {"format": fmt, "axis": -1, "size": size}, domain=DOMAIN)


def _layer(
    op: GraphWriter, index: int, settings: AttentionGraph, mask: ir.Value
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Inputs and outputs of a layer: q, k, v and the cache; y and the cache."""

    def value(name: str, *dims: int | str) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(settings.dtype), shape=ir.Shape(dims))

    q = value(f"q{index}", "batch_size", KV_HEADS * GROUPS, "sequence_length", HEAD_DIM)
    k, v = (value(f"{n}{index}", "batch_size", KV_HEADS, "sequence_length", HEAD_DIM) for n in "kv")
    names = [f"past_key_values.{index}.{kind}" for kind in ("key", "value")]
    pasts = [value(name, "batch_size", KV_HEADS, "past_sequence_length", HEAD_DIM) for name in names]
    keys, values = (op.Concat(past, new, axis=-2) for past, new in zip(pasts, (k, v), strict=True))
    for present, name in zip((keys, values), names, strict=True):
        total = "past_sequence_length + sequence_length"
        present.name, present.type = present_of(name), ir.TensorType(settings.dtype)
        present.shape = ir.Shape(["batch_size", KV_HEADS, total, HEAD_DIM])

    shape = op.Concat(op.Shape(keys, end=2), op.vector([-1, HEAD_DIM]), axis=0)
    rows = _quantized(op, op.Reshape(q, shape), settings.key, HEAD_DIM)
    scores = op.MatMul(rows, op.Transpose(_quantized(op, keys, settings.key, HEAD_DIM), perm=[0, 1, 3, 2]))
    logits = op.Add(op.Mul(scores, op.float32(HEAD_DIM**-0.5)), mask)
    weights = op.to(op.Softmax(logits, axis=-1), settings.dtype)
    total = op.Shape(values, start=2, end=3)
    cut = [op.vector([0]), total, op.vector([3])]
    p = op.Slice(_quantized(op, weights, settings.value, 0), *cut)
    if settings.axis == "sequence":
        columns = op.Transpose(values, perm=[0, 1, 3, 2])
        read = op.Transpose(op.Slice(_quantized(op, columns, settings.value, 0), *cut), perm=[0, 1, 3, 2])
    else:
        read = _quantized(op, values, settings.value, HEAD_DIM)
    y = op.Reshape(op.MatMul(p, read), op.Concat(op.Shape(q, end=3), op.Shape(values, start=3), axis=0))
    y.name, y.type = f"y{index}", ir.TensorType(ir.DataType.FLOAT)
    return [q, k, v, *pasts], [y, keys, values]


def attention(settings: AttentionGraph = AttentionGraph()) -> ir.Model:
    """Layers of attention over a float cache, side by side: from ``q0 k0 v0`` to ``y0``, and so on.

    ``mask`` ``[batch, 1, 1, tokens]`` is added to the logits of all; ``past_shape`` is the shape of the first values.
    """
    op = GraphWriter()
    mask = ir.Value(name="mask", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["mask_size", 1, 1, "tokens"]))
    inputs, outputs = [mask], []
    for index in range(settings.layers):
        ins, outs = _layer(op, index, settings, mask)
        inputs += ins
        outputs += outs
    tokens = op.Shape(inputs[5])
    tokens.name, tokens.type = "past_shape", ir.TensorType(ir.DataType.INT64)
    for number, node in enumerate(op.nodes):
        node.name = f"/{node.op_type}_{number}"
        for output in node.outputs:
            output.name = output.name or f"v{number}_{output.index()}"
    graph = ir.Graph(inputs, [*outputs, tokens], nodes=op.nodes, opset_imports={"": 21, DOMAIN: 1}, name="attention")
    return ir.Model(graph, ir_version=10)


def open_model(model: ir.Model, library: bool = True) -> ort.InferenceSession:
    """A session of the model with bodies."""
    model = model.clone()
    AttachFunctions()(model)
    return create_session(ir.to_proto(model).SerializeToString(), threads=1, library=library)


class Steps:
    """A session whose cache is fed back from run to run."""

    def __init__(self, session: ort.InferenceSession, batch: int = BATCH) -> None:
        self._session = session
        self._names = [each.name for each in session.get_outputs()]
        self.cache = empty_cache(session.get_inputs(), batch)
        self.tokens = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs that are no cache; without a mask all tokens count."""
        self.tokens += feeds["k0"].shape[2]
        mask = {"mask": np.zeros((1, 1, 1, self.tokens), np.float32)}
        outputs = dict(zip(self._names, self._session.run(None, mask | {**feeds, **self.cache}), strict=True))
        self.cache = {past: outputs.pop(present_of(past)) for past in self.cache}
        return outputs


def split(feeds: Mapping[str, Array], lengths: Sequence[int]) -> list[dict[str, Array]]:
    """Feeds of whole sequences cut along the tokens, axis 2."""
    ends = np.cumsum(lengths)[:-1]
    pieces = {name: np.split(array, ends, axis=2) for name, array in feeds.items()}
    return [{name: parts[i] for name, parts in pieces.items()} for i in range(len(lengths))]


def random_feeds(tokens: int, settings: AttentionGraph = AttentionGraph(), seed: int = 0) -> dict[str, Array]:
    """Queries, keys and values of so many tokens for every layer."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for index in range(settings.layers):
        for name, heads in (("q", KV_HEADS * GROUPS), ("k", KV_HEADS), ("v", KV_HEADS)):
            shape = (BATCH, heads, tokens, HEAD_DIM)
            x = rng.standard_normal(shape) * np.exp2(rng.integers(-3, 4, shape))
            feeds[f"{name}{index}"] = x.astype(settings.dtype.numpy())
    return feeds


def assert_same_numbers(float_cache: ir.Model, packed_cache: ir.Model, layers: int = 1, library: bool = True) -> None:
    """The same results, bit for bit, in runs of several lengths."""
    dtype = float_cache.graph.inputs[1].dtype
    feeds = random_feeds(71, AttentionGraph(layers=layers, dtype=dtype or ir.DataType.FLOAT))
    expected, actual = (Steps(open_model(model, library)) for model in (float_cache, packed_cache))
    for piece in split(feeds, [1, 30, 1, 1, 32, 5, 1]):
        wanted, found = expected.run(piece), actual.run(piece)
        assert wanted.keys() == found.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


def names(values: Iterable[ir.Value | None]) -> list[str | None]:
    """Their names."""
    return [value.name if value is not None else None for value in values]


def described(values: Iterable[ir.Value]) -> dict[str | None, str]:
    """Types and shapes by name."""
    return {value.name: f"{value.dtype}{value.shape}" for value in values}
