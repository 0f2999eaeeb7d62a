"""Small graphs with the patterns that the passes meet, and what is needed to run them and to bound their error."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort

from mxcompile.formats import NONE, get_format

K, N = 40, 24
"""Sizes of most layers: K is no multiple of a block, so that the last block is ragged."""

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one float32 operation. Source: IEEE 754-2019, binary32."""

UNIT_ROUNDOFF_HALF = 2.0**-11
"""Largest relative error of one rounding to float16. Source: IEEE 754-2019, binary16."""

_PRODUCTS = {
    "matmul": '["/layer/MatMul"] {y} = MatMul(x, w)',
    "transpose": 'columns = Transpose<perm = [1, 0]>(w) ["/layer/MatMul"] {y} = MatMul(x, columns)',
    "alias": 'other = Identity(w) ["/layer/MatMul"] {y} = MatMul(x, other)',
    "gemm": '["/layer/Gemm"] {y} = Gemm(x, w{c})',
    "gemm_transposed": '["/layer/Gemm"] {y} = Gemm<transB = 1>(x, w{c})',
}
FORMS = tuple(_PRODUCTS)
"""Every way in which an exporter writes a linear layer."""

ROWS = ("transpose", "gemm_transposed")
"""Those whose weight is ``[n, k]``."""

_DECODER = """
["/embed/Gather"] e = Gather(embed, ids)
positions = Cast<to = 1>(ids)
column = Unsqueeze(positions, last)
["/rotary_emb/MatMul"] angles = MatMul(column, frequencies)
cosines = Cos(angles)
sines = Sin(angles)
turn = Concat<axis = -1>(cosines, sines)
turned = Mul(e, turn)
["/layers.0/attn/q_proj/MatMul"] q = MatMul(turned, wq)
["/layers.0/attn/k_proj/MatMul"] k = MatMul(turned, wk)
["/layers.0/attn/v_proj/MatMul"] v = MatMul(e, wv)
keys = Transpose<perm = [0, 2, 1]>(k)
["/layers.0/attn/MatMul"] scores = MatMul(q, keys)
p = Softmax(scores)
["/layers.0/attn/MatMul_1"] mixed = MatMul(p, v)
["/layers.0/attn/o_proj/MatMul"] o = MatMul(mixed, wo)
h = Add(e, o)
["/layers.0/mlp/gating/MatMul"] g = MatMul(h, wg)
gates = Softmax(g)
top, which = TopK(gates, two)
share = ReduceSum(top, last)
["/layers.0/mlp/gate_proj/MatMul"] up = MatMul(h, wu)
["/layers.0/mlp/gate_proj/Add"] biased = Add(bu, up)
active = Relu(biased)
["/layers.0/mlp/down_proj/MatMul"] down = MatMul(active, wd)
weighted = Mul(down, share)
final = Add(h, weighted)
head = Transpose<perm = [1, 0]>(embed)
["/head/MatMul"] raw = MatMul(final, head)
logits = Mul(raw, scale)
"""

DECODER_LAYERS = (
    "/layers.0/attn/q_proj",
    "/layers.0/attn/k_proj",
    "/layers.0/attn/v_proj",
    "/layers.0/attn/o_proj",
    "/layers.0/mlp/gate_proj",
    "/layers.0/mlp/down_proj",
)
"""The layers of `decoder` that are quantized by default."""

_BRANCHES = """
y = If(c) <
    then_branch = then_graph () => (float[b,s,24] a) {
        ["/layer/MatMul"] a = MatMul(x, w)
    },
    else_branch = else_graph () => (float[b,s,24] d) {
        ["/layer/MatMul"] t = MatMul(x, w)
        ["/layer/Add"] d = Add(bias, t)
    }
>
"""


def parse(body: str, inputs: str, outputs: str, weights: Mapping[str, npt.NDArray[Any]]) -> ir.Model:
    """A model of opset 21 from ONNX text; ``weights`` become initializers."""
    text = f'<ir_version: 10, opset_import: ["" : 21]> main_graph ({inputs}) => ({outputs}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(ir.to_proto(ir.tensor(array, name=name)) for name, array in weights.items())
    return ir.from_proto(proto)


def random_weights(seed: int = 0, dtype: npt.DTypeLike = np.float32, **shapes: Sequence[int]) -> dict[str, Any]:
    """Normally distributed arrays of those shapes."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32).astype(dtype) for name, shape in shapes.items()}


def linear(form: str = "matmul", bias: str | None = None, dtype: str = "float") -> ir.Model:
    """One linear layer ``/layer`` from x ``[b, s, K]`` (Gemm: ``[b, K]``) to y, weight w, bias b ``[N]``.

    Args:
        form: One of FORMS.
        bias: Which operand of Add the bias is, ``left`` or ``right`` (Gemm: either); None for no bias.
        dtype: ``float``, ``float16`` or ``bfloat16``.
    """
    lead = "b" if form.startswith("gemm") else "b,s"
    numpy_dtype = ir.DataType[dtype.upper()].numpy()
    weights = random_weights(dtype=numpy_dtype, w=[N, K] if form in ROWS else [K, N])
    body = _PRODUCTS[form]
    if bias is not None:
        weights |= random_weights(1, numpy_dtype, b=[N])
    if bias is None or form.startswith("gemm"):
        body = body.format(y="y", c=", b" if bias else "")
    else:
        operands = "b, t" if bias == "left" else "t, b"
        body = body.format(y="t") + f' ["/layer/Add"] y = Add({operands})'
    return parse(body, f"{dtype}[{lead},{K}] x", f"{dtype}[{lead},{N}] y", weights)


def decoder() -> ir.Model:
    """A decoder layer: rotary angles, attention, a router, an MLP, and a head tied to the embedding."""
    square, hidden, vocabulary = [K, K], 2 * K, 50
    weights = random_weights(embed=[vocabulary, K], frequencies=[1, K // 2], wq=square, wk=square, wv=square, wo=square)
    weights |= random_weights(1, wg=[K, 4], wu=[K, hidden], bu=[hidden], wd=[hidden, K])
    weights |= {"last": np.array([-1]), "two": np.array([2]), "scale": np.float32(0.5)}
    return parse(_DECODER, "int64[b,s] ids", f"float[b,s,{vocabulary}] logits", weights)


def branches() -> ir.Model:
    """An If with the layer ``/layer`` over the same outer weight in both branches, in the else branch with a bias."""
    weights = random_weights(w=[K, N], bias=[N])
    return parse(_BRANCHES, f"bool c, float[b,s,{K}] x", f"float[b,s,{N}] y", weights)


def nodes(model: ir.Model, op_type: str) -> list[ir.Node]:
    """The nodes of that type in the main graph and its subgraphs."""
    return [node for node in model.graph.all_nodes() if node.op_type == op_type]


def counts(model: ir.Model, *op_types: str) -> list[int]:
    """How many nodes of each type the main graph and its subgraphs hold."""
    return [len(nodes(model, op_type)) for op_type in op_types]


def run(model: ir.Model, *, optimize: bool = True, **feeds: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The first output in a stock onnxruntime, which runs the bodies of the custom ops.

    Args:
        model: The model.
        optimize: Whether onnxruntime may rearrange the operators.
        feeds: The inputs.
    """
    options = ort.SessionOptions()
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    proto = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    output: npt.NDArray[Any] = session.run(None, feeds)[0]
    return output


def witness(
    x: npt.NDArray[Any], rows: npt.NDArray[Any], bias: npt.NDArray[Any] | None, weights: str, activations: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What a quantized linear layer gives by the NumPy definition of its formats, and the error that float32 allows.

    A product of K terms and a bias, summed in float32 in any order, is off by at most
    ``(K + 1) * UNIT_ROUNDOFF * (sum |x| |w| + |b|)`` to first order; K + 2 covers the second order too.

    Returns:
        Exact result and bound, float64 ``[..., n]``.
    """
    x = x.astype(np.float32)
    x_hat = x if activations == NONE else get_format(activations).fake_quantize(x)
    a = x_hat.astype(np.float64)
    w = get_format(weights).fake_quantize(rows.astype(np.float32)).astype(np.float64)
    b = np.zeros(len(w)) if bias is None else bias.astype(np.float64)
    bound = (w.shape[1] + 2) * UNIT_ROUNDOFF * (np.abs(a) @ np.abs(w).T + np.abs(b))
    return a @ w.T + b, bound
