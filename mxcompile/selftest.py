"""Known answers: does this installation compute what the formats define, with the library and without?"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mxcompile import ops, runtime
from mxcompile.errors import MxCompileError
from mxcompile.formats import FORMATS, BlockTensor, get_format

_KNOWN_BLOCK: Final = (6.0, -3.0, 1.0)
_KNOWN: Final = {
    "amxfp4": (b"\xf7\x02", b"\x3c\x38"),  # scales 6/6 and 3/6 in E5M2; codes 6, -6 (of the scale 1/2), 1
    "mxfp4": (b"\xd7\x02", b"\x7f"),  # scale 2**(2 - 2) in E8M0; codes 6, -3, 1
}
"""Codes and scales of `_KNOWN_BLOCK`, worked out by hand. Source: the formats' docstrings."""

_UNIT_ROUNDOFF: Final = 2.0**-24
"""Largest relative error of one float32 rounding. Source: IEEE 754-2019, binary32."""

_K: Final = 100  # Three blocks of 32 and a ragged one.


@dataclasses.dataclass(frozen=True)
class Check:
    """One question and its answer.

    Attributes:
        name: What was checked.
        ok: Whether it is as it should be.
        detail: What was found.
    """

    name: str
    ok: bool
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class SelftestReport:
    """What was found.

    Attributes:
        library: Path of the custom-op library; None, with `version` and `isa`, if it cannot be used.
        version: The library's version.
        isa: The instruction set in use.
        onnxruntime: Version of onnxruntime.
        checks: Everything that was checked.
    """

    library: str | None
    version: str | None
    isa: str | None
    onnxruntime: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if not check.ok]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values."""
        return {"ok": not self.failed, **dataclasses.asdict(self)}


def selftest() -> SelftestReport:
    """Checks the library, and every format with the library and without; a failure is reported, not raised."""
    info = None
    try:
        info = runtime.library_info()
        checks = [Check("library", True, str(info.path))]
    except MxCompileError as error:
        checks = [Check("library", False, str(error))]
    for name in [*FORMATS, "amxfp4_b16", "mxfp4_b16"]:
        checks += _check_format(name, library=False)
        if info is not None:
            checks += _check_format(name, library=True)
    path, version, isa = (str(info.path), info.version, info.isa) if info else (None, None, None)
    return SelftestReport(path, version, isa, runtime.onnxruntime_version(), tuple(checks))


def _check_format(name: str, library: bool) -> Iterator[Check]:
    """Runs the three ops of one format on fixed data."""
    where = f"{name}, {'library' if library else 'function bodies'}"
    x, a, w = _data()
    packed, weights = get_format(name).quantize(x), get_format(name).quantize(w)
    try:
        session = runtime.create_session(_model(name, weights), threads=1, library=library)
        feeds = {"X": runtime.to_value(x), "A": runtime.to_value(a)}
        outputs = runtime.run(session, ("codes", "scales", "X_hat", "Y"), feeds)
    except MxCompileError as error:
        yield Check(where, False, str(error))
        return
    codes, scales, x_hat, y = (value.numpy() for value in outputs.values())

    wrong = int((codes != packed.codes).sum()) + int((scales != packed.scales).sum())
    yield Check(where, wrong == 0, f"QuantizeBlock: {wrong} of {packed.nbytes} bytes differ")
    if name in _KNOWN:
        found = (codes[0, :2].tobytes(), scales[0, 0].tobytes())
        yield Check(where, found == _KNOWN[name], f"by hand: {' '.join(part.hex() for part in found)}")
    expected = get_format(name).dequantize(packed)
    wrong = int((x_hat.view(np.uint32) != expected.view(np.uint32))[~np.isnan(expected)].sum())
    wrong += int((np.isnan(x_hat) != np.isnan(expected)).sum())
    yield Check(where, wrong == 0, f"DequantizeBlock: {wrong} of {expected.size} values differ")
    share = _error(y, get_format(name).fake_quantize(a), get_format(name).dequantize(weights))
    yield Check(where, share <= 1, f"MatMulBlock: error {share:.3f} of what float32 sums may have")


def _data() -> tuple[npt.NDArray[np.float32], ...]:
    """X ``[8, k]`` with the known block and every special case, A ``[5, k]`` and W ``[9, k]``."""
    rng = np.random.default_rng(0)
    x, a, w = (rng.standard_normal((rows, _K)).astype(np.float32) for rows in (8, 5, 9))
    x[:5] = 0
    x[0, :3] = _KNOWN_BLOCK
    x[2] = np.ldexp(np.float32(1), np.linspace(-149, 127, _K).astype(np.int32))  # subnormal to the largest
    x[3, 40], x[4, 70] = np.nan, -np.inf
    return x, a, w


def _error(y: npt.NDArray[np.float32], a: npt.NDArray[np.float32], w: npt.NDArray[np.float32]) -> float:
    """The largest error of ``y = a w^T`` as a share of what a float32 sum of k products in any order may have.

    That is ``(k + 1) * unit roundoff * sum |a| |w|``: k - 1 sums and a product round once each, and one more covers
    the terms of second order. (Of nvfp4 with itself the library rounds once for 16 products and once at the end; that
    decoding rounds elements of a and w twice each is less than the rest.)
    """
    wide_a, wide_w = a.astype(np.float64), w.astype(np.float64)
    bound = (_K + 1) * _UNIT_ROUNDOFF * (np.abs(wide_a) @ np.abs(wide_w).T)
    return float(np.max(np.abs(y - wide_a @ wide_w.T) / bound))


def _model(name: str, weights: BlockTensor) -> bytes:
    """X -> codes, scales -> X_hat; A -> Y with constant weights."""
    x = ir.val("X", ir.DataType.FLOAT, ["m", _K])
    a = ir.val("A", ir.DataType.FLOAT, ["n", _K])
    constants = {"w_codes": weights.codes, "w_scales": weights.scales}
    w = [ir.val(key, const_value=ir.tensor(array, name=key)) for key, array in constants.items()]
    codes, scales = ir.val("codes", ir.DataType.UINT8), ir.val("scales", ir.DataType.UINT8)
    x_hat, y = ir.val("X_hat", ir.DataType.FLOAT), ir.val("Y", ir.DataType.FLOAT)
    matmul: dict[str, str | int] = {"a_format": name, "b_format": name, "k": _K}
    nodes = [
        ir.node(ops.QUANTIZE, [x], {"format": name}, domain=ops.DOMAIN, outputs=[codes, scales]),
        ir.node(ops.DEQUANTIZE, [codes, scales], {"format": name, "size": _K}, domain=ops.DOMAIN, outputs=[x_hat]),
        ir.node(ops.MATMUL, [a, *w], matmul, domain=ops.DOMAIN, outputs=[y]),
    ]
    opsets = {"": ops.OPSET, ops.DOMAIN: ops.VERSION}
    graph = ir.Graph(
        [x, a], [codes, scales, x_hat, y], nodes=nodes, initializers=w, opset_imports=opsets, name="selftest"
    )
    model = ir.Model(graph, ir_version=runtime.IR_VERSION, functions=ops.functions([name]))
    serialized: bytes = ir.to_proto(model).SerializeToString()
    return serialized
