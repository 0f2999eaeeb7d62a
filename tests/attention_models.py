"""Graphs of one attention, in the forms in which exporters write it and in forms that are none."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from models import parse

HEADS, HEAD_DIM = 4, 40
"""HEAD_DIM is no multiple of a block of 32: the last block of each row is shorter."""

BATCH, QUERIES, TOKENS = 2, 3, 37
"""TOKENS is odd, so that the last byte of 4-bit codes is half empty, and more than a block."""

SPLIT_KEYS = "columns = Transpose<perm = [0, 1, 3, 2]>(k)"


@dataclasses.dataclass(frozen=True)
class Form:
    """How one attention is written: of each side the statements, and the value that they make.

    Attributes:
        q: From ``q`` ``[b, HEADS, s, HEAD_DIM]`` to what the first product reads on the left.
        k: From ``k`` ``[b, kv_heads, t, HEAD_DIM]`` to what it reads on the right.
        logits: From its result ``raw`` and ``mask`` ``[b, 1, s, t]`` to what the Softmax reads.
        p: From the probabilities ``soft`` to what the second product reads on the left.
        v: From ``v`` ``[b, kv_heads, t, HEAD_DIM]`` to what it reads on the right.
        kv_heads: Heads of keys and values.
        shapes: Shapes of q, k, v and y, where they are others; ``f`` stands for HEAD_DIM.
        softmax: Attributes of the Softmax.
        rest: Statements that make other outputs, and their names.
    """

    q: tuple[str, str] = ("", "q")
    k: tuple[str, str] = (SPLIT_KEYS, "columns")
    logits: tuple[str, str] = ("masked = Add(raw, mask)", "masked")
    p: tuple[str, str] = ("", "soft")
    v: tuple[str, str] = ("", "v")
    kv_heads: int = HEADS
    shapes: tuple[str, ...] = ()
    softmax: str = "axis = -1"
    rest: tuple[str, str] = ("", "")


_CONSTANTS: dict[str, npt.NDArray[Any]] = {
    "half": np.float32(0.4),
    "four": np.array([2.5], np.float32),
    "one": np.float32(1),
    "cap": np.float32(3),
    "zero": np.float32(0),
    "least": np.float32(-6e4),
    "features": np.linspace(0.5, 2, HEAD_DIM, dtype=np.float32),
    "two": np.array([2]),
    "axis1": np.array([1]),
    "axis2": np.array([2]),
    "last": np.array([-1]),
    "end": np.array([np.iinfo(np.int64).max]),
    "heads": np.array([HEADS]),
    "minus": np.array([-1]),
    "front": np.array([0]),
    "first": np.array(0),
    "second": np.array(1),
    "third": np.array(2),
    "expanded": np.array([1, 1, 2, 1, 1]),
    "expanded1": np.array([1, 2, 1, 1, 1]),
    "merged": np.array([0, HEADS, -1, HEAD_DIM]),
}

REPEATED = """
{x}_five = Unsqueeze({x}, axis2)
{x}_each = Expand({x}_five, expanded)
{x}_all = Reshape({x}_each, merged)
"""
"""Each head of ``x`` twice in a row, for two queries."""

_TILED = REPEATED.replace("axis2", "axis1").replace("expanded", "expanded1")
"""All heads, and then all of them again: not the order of grouped heads."""


def _computed_shapes(x: str) -> str:
    """The repetition with the shapes that TorchScript's exporter computes when the model runs."""
    return f"""
{x}_five = Unsqueeze({x}, axis2)
{x}_shape = Shape({x})
{x}_b0 = Gather({x}_shape, first) {x}_b = Unsqueeze({x}_b0, front)
{x}_h0 = Gather({x}_shape, second) {x}_h = Unsqueeze({x}_h0, front)
{x}_t0 = Gather({x}_shape, third) {x}_t = Unsqueeze({x}_t0, front)
{x}_dim = Constant<value_ints = [{HEAD_DIM}]>()
{x}_wanted0 = Concat<axis = 0>({x}_b, {x}_h, two, {x}_t, {x}_dim)
{x}_wanted = Reshape({x}_wanted0, minus)
{x}_rank = Shape({x}_wanted)
{x}_ones = ConstantOfShape<value = int64[1] {{1}}>({x}_rank)
{x}_keep = Mul({x}_ones, minus)
{x}_any = Equal({x}_wanted, {x}_keep)
{x}_to = Where({x}_any, {x}_ones, {x}_wanted)
{x}_each = Expand({x}_five, {x}_to)
{x}_more0 = Mul({x}_h0, third) {x}_more = Unsqueeze({x}_more0, front)
{x}_all_shape = Concat<axis = 0>({x}_b, {x}_more, {x}_t, {x}_dim)
{x}_all = Reshape({x}_each, {x}_all_shape)
"""


_ROOT = "qn = Shape(q) qd = Slice(qn, last, end) qf = Cast<to = 1>(qd) qr = Sqrt(qf)"
"""The root of head_dim, as it is computed when the model runs."""

_COLUMNS = "columns = Transpose<perm = [0, 1, 3, 2]>({x})"
_GROUPED = Form(
    k=(REPEATED.format(x="k") + _COLUMNS.format(x="k_all"), "columns"),
    v=(REPEATED.format(x="v"), "v_all"),
    kv_heads=HEADS // 2,
)

MATCHES = {
    "plain": Form(),
    "nothing between": Form(logits=("", "raw")),
    "scaled on both sides": Form(q=("qs = Mul(q, half)", "qs"), k=(f"{SPLIT_KEYS} ks = Mul(half, columns)", "ks")),
    "scaled before transposing": Form(k=("ks = Mul(k, half) columns = Transpose<perm = [0, 1, 3, 2]>(ks)", "columns")),
    "divided": Form(q=("qs = Div(q, four)", "qs"), k=(f"{SPLIT_KEYS} ks = Div(columns, half)", "ks")),
    "scaled by one": Form(q=("qs = Mul(q, one)", "qs")),
    "scaled by what is computed": Form(
        q=(f"{_ROOT} qi = Div(one, qr) q2 = Sqrt(qi) qs = Mul(q, q2)", "qs"),
        k=(f"{SPLIT_KEYS} ks = Div(columns, qr)", "ks"),
    ),
    "divided by what is computed": Form(q=(f"{_ROOT} qs = Div(q, qr)", "qs")),
    "keys transposed at once": Form(
        k=("columns = Transpose<perm = [0, 2, 3, 1]>(k)", "columns"), shapes=("", "b,t,4,f", "", "")
    ),
    "keys transposed twice": Form(
        k=(
            "ks = Transpose<perm = [0, 2, 1, 3]>(k) kt = Identity(ks) columns = Transpose<perm = [0, 1, 3, 2]>(kt)",
            "columns",
        ),
        shapes=("", "b,t,4,f", "", ""),
    ),
    "keys kept as columns": Form(k=("", "k"), shapes=("", "b,4,f,t", "", "")),
    "three dimensions": Form(
        k=("columns = Transpose<perm = [1, 2, 0]>(k)", "columns"),
        logits=("shaped = Reshape(raw, four_d) sums = Add(shaped, mask) masked = Reshape(sums, three_d)", "masked"),
        shapes=("h,s,f", "t,h,f", "h,t,f", "h,s,f"),
    ),
    "grouped": _GROUPED,
    "grouped, shapes computed": dataclasses.replace(
        _GROUPED,
        k=(_computed_shapes("k") + _COLUMNS.format(x="k_all"), "columns"),
        v=(_computed_shapes("v"), "v_all"),
    ),
    "grouped, nothing known": dataclasses.replace(_GROUPED, shapes=("b,h,s,d", "b,g,t,d", "b,g,t,d", "b,h,s,d")),
    "head_dim not known": Form(shapes=("b,4,s,d", "b,4,t,d", "b,4,t,d", "b,4,s,d")),
    "capped": Form(logits=("l1 = Div(raw, cap) l2 = Tanh(l1) l3 = Mul(l2, cap) masked = Add(mask, l3)", "masked")),
    "masked by Where": Form(
        logits=("hidden = Less(mask, zero) masked = Where(hidden, least, raw)", "masked"),
    ),
    "guarded": Form(p=("bad = IsNaN(soft) kept = Where(bad, zero, soft)", "kept")),
    "dropped out": Form(p=("kept = Dropout(soft)", "kept")),
    "cast": Form(
        logits=("sums = Add(raw, mask) masked = Cast<to = 11>(sums)", "masked"), p=("kept = Cast<to = 1>(soft)", "kept")
    ),
    "Softmax along axis 3": Form(softmax="axis = 3"),
}
"""Forms of attention."""

PLAIN_KEYS = {
    "heads repeated in another order": dataclasses.replace(
        _GROUPED,
        k=(_TILED.format(x="k") + _COLUMNS.format(x="k_all"), "columns"),
        v=(_TILED.format(x="v"), "v_all"),
    ),
    "batches repeated too": dataclasses.replace(
        _GROUPED,
        k=(REPEATED.format(x="k").replace("expanded", "more") + _COLUMNS.format(x="k_all"), "columns"),
        v=(REPEATED.format(x="v").replace("expanded", "more"), "v_all"),
        shapes=("b,4,s,f", "1,2,t,f", "1,2,t,f", "b,4,s,f"),
    ),
}
"""Forms of attention in which the products read something else than grouped heads."""

NO_ATTENTION = {
    "another axis": (Form(softmax="axis = 2"), "along axis 2"),
    "nothing reads the probabilities": (
        Form(p=("", "unrelated"), shapes=("", "", "", ""), rest=("kept = Relu(soft)", "kept")),
        "no product of activations reads the probabilities",
    ),
    "no Softmax": (Form(p=("", "masked")), "no Softmax"),
}


def attention(form: Form | None = None, dtype: str = "float") -> ir.Model:
    """A graph of one attention in the form, from q, k, v and mask to y, named as in a model's first layer."""
    form = form or Form()
    defaults = (f"b,{HEADS},s,f", f"b,{form.kv_heads},t,f", f"b,{form.kv_heads},t,f", f"b,{HEADS},s,f")
    dims = [given or default for given, default in zip(form.shapes or defaults, defaults, strict=True)]
    q, k, v, y = (f"{dtype}[{each.replace('f', str(HEAD_DIM))}]" for each in dims)
    body = f"""
        {form.q[0]}
        {form.k[0]}
        ["/layers.0/attn/MatMul"] raw = MatMul({form.q[1]}, {form.k[1]})
        {form.logits[0]}
        ["/layers.0/attn/Softmax"] soft = Softmax<{form.softmax}>({form.logits[1]})
        {form.p[0]}
        {form.v[0]}
        ["/layers.0/attn/MatMul_1"] y = MatMul({form.p[1]}, {form.v[1]})
        {form.rest[0]}
    """
    element = ir.DataType[dtype.upper()].numpy()
    weights = {
        name: array.astype(element) if array.dtype == np.float32 else array
        for name, array in (_CONSTANTS | _shapes()).items()
        if name in body
    }
    outputs = f"{y} y" + (f", {dtype} {form.rest[1]}" if form.rest[1] else "")
    extra = f", {dtype}[b,4,s,t] unrelated" if "unrelated" in body else ""
    return parse(body, f"{q} q, {k} k, {v} v, {dtype}[b,1,s,t] mask{extra}", outputs, weights)


def _shapes() -> dict[str, npt.NDArray[np.int64]]:
    return {
        "four_d": np.array([BATCH, HEADS, QUERIES, TOKENS]),
        "three_d": np.array([BATCH * HEADS, QUERIES, TOKENS]),
        "more": np.array([BATCH, 1, 2, 1, 1]),
    }


def feeds(model: ir.Model, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Random inputs: numbers of mixed sizes, and a mask that hides the first tokens of the second sequence."""
    rng = np.random.default_rng(seed)
    sizes = {"b": BATCH, "h": HEADS, "g": HEADS // 2, "s": QUERIES, "t": TOKENS, "d": HEAD_DIM}
    result: dict[str, npt.NDArray[Any]] = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        assert value.shape is not None
        names = [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape]
        three = len(names) == 3 and "h" in names  # sequences and heads together
        shape = [dim if isinstance(dim, int) else sizes[dim] * (BATCH if three and dim == "h" else 1) for dim in names]
        x = rng.standard_normal(shape) * np.exp2(rng.integers(-2, 3, shape))
        if value.name == "mask":
            x = np.zeros(shape)
            x[1, :, :, :5] = -60000 if value.dtype is ir.DataType.FLOAT16 else -1e9
        result[str(value.name)] = x.astype(value.dtype.numpy())
    return result
