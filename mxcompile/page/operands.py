"""Samples of what the products of a float model multiply, in the layout in which their formats quantize it."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mxcompile import onnx_file, runtime
from mxcompile.config import CompileConfig
from mxcompile.evaluation.models import Array, EvalModel
from mxcompile.evaluation.switches import apply_pass
from mxcompile.formats import Format, get_format
from mxcompile.ops import DEQUANTIZE, DOMAIN, QUANTIZE
from mxcompile.passes import InsertAttention, InsertQuantize, NormalizeLinears, SelectFormats
from mxcompile.passes.insert_quantize import release
from mxcompile.passes.metadata import ATTENTION, LAYER, WEIGHTS
from mxcompile.passes.pack_weights import for_matrix
from mxcompile.passes.rewriting import is_constant, remove_unused

Float32 = npt.NDArray[np.float32]

SAMPLE: Final = 2**18
"""Elements of an operand that are looked at, at most, unless a row alone has more: 1 MiB of float32."""

_DOMAIN: Final = "mxcompile.page"
_BODIES: Final = (
    f"""
<domain: "{_DOMAIN}", opset_import: ["" : 21]>
Sample (x) => (rows) {{
    wide = Cast<to = 1>(x)
    length = Shape<start = -1>(wide)
    open = Constant<value_ints = [-1]>()
    shape = Concat<axis = 0>(open, length)
    flat = Reshape(wide, shape)
    count = Shape<start = 0, end = 1>(flat)
    elements = Mul(count, length)
    less = Constant<value_ints = [{SAMPLE - 1}]>()
    most = Constant<value_ints = [{SAMPLE}]>()
    two = Constant<value_ints = [2]>()
    one = Constant<value_ints = [1]>()
    zero = Constant<value_ints = [0]>()
    above = Add(elements, less)
    least = Div(above, most)
    half = Div(least, two)
    even = Mul(half, two)
    stride = Add(even, one)
    rows = Slice(flat, zero, count, zero, stride)
}}
""",
    f"""
<domain: "{_DOMAIN}", opset_import: ["" : 21]>
Largest (x) => (largest) {{
    wide = Cast<to = 1>(x)
    magnitude = Abs(wide)
    largest = ReduceMax<keepdims = 0>(magnitude)
}}
""",
)
"""`stride` and the rows in it, as operators, so that of a long prompt only the sample leaves the session; and the
largest magnitude, for formats with a scale of the whole tensor."""

_NAMES: Final = {None: ("activations", "weights"), "qk": ("queries", "keys"), "pv": ("probabilities", "values")}
"""What the left and the right operand of a product are called."""

_BETWEEN: Final = (DEQUANTIZE, "Slice", "Transpose")
"""Operators that the passes put between a quantizer and the product."""


@dataclasses.dataclass(frozen=True)
class Operand:
    """A sample of one operand of one or more products.

    Attributes:
        uses: The products that read it, and what it is in them.
        format: What it is quantized to; with the scale of the whole tensor, if the format has one.
        rows: Evenly spaced rows, float32 ``[rows, k]``: blocks run along k.
    """

    uses: tuple[tuple[str, str], ...]
    format: Format
    rows: Float32


@dataclasses.dataclass(frozen=True)
class _Source:
    """A value that is quantized, in which format, and for which products."""

    value: ir.Value
    format: str
    uses: tuple[tuple[str, str], ...]


def stride(rows: int, length: int) -> int:
    """The step between sampled rows, so that about `SAMPLE` elements are left, or fewer.

    It is odd, so that it does not always meet the same position of sequences of a power of two of tokens.
    """
    return -(-rows * length // SAMPLE) // 2 * 2 + 1


def sample_operands(
    model: ir.Model,
    config: CompileConfig,
    sample: Mapping[str, Array] | None,
    *,
    threads: int | None = None,
    library: bool = True,
) -> list[Operand]:
    """Runs a float model once and takes a sample of both operands of every quantized product.

    The graph is taken through the passes up to the quantizers, whose inputs are what is quantized: queries before
    scaling, values as rows of tokens. Then the quantizers are left out again, so that it is the float model, and
    samples of their inputs become outputs. So memory is that of the float model and 1 MiB for each different operand;
    weights are read from the file, one at a time.

    Products in branches of the graph are left out.

    Args:
        model: The model as it was exported; it is changed.
        config: What is quantized, and how.
        sample: One window of data (see `EvalModel.run`); None looks at weights only.
        threads: See `runtime.create_session`.
        library: See `runtime.create_session`.

    Returns:
        Operands in graph order.

    Raises:
        MxCompileError: The model cannot be run.
    """
    for each in (NormalizeLinears(), SelectFormats(config), InsertQuantize(), InsertAttention(config.kv_blocking)):
        apply_pass(each, model)
    sources = _sources(model)
    run = [source for source in sources if not is_constant(source.value)] if sample is not None else []
    found = {source.uses: _constant_operand(source) for source in sources if is_constant(source.value)}
    if run and sample is not None:
        _tap(model, run)
        found |= {operand.uses: operand for operand in _run(model, run, sample, threads, library)}
    return [found[source.uses] for source in sources if source.uses in found]


def _sources(model: ir.Model) -> list[_Source]:
    """What the quantizers of the main graph quantize, each value in each format once."""
    uses: dict[tuple[ir.Value, str], list[tuple[str, str]]] = {}
    for node in model.graph:
        metadata = node.metadata_props
        if node.op_type != "MatMul" or WEIGHTS not in metadata:
            continue
        for value, name in zip(node.inputs, _NAMES[metadata.get(ATTENTION)], strict=True):
            quantizer = _quantizer(value)
            if quantizer is not None and quantizer.inputs[0] is not None:
                key = quantizer.inputs[0], quantizer.attributes["format"].as_string()
                uses.setdefault(key, []).append((metadata[LAYER], name))
    return [_Source(value, fmt, tuple(found)) for (value, fmt), found in uses.items()]


def _quantizer(value: ir.Value | None) -> ir.Node | None:
    """The QuantizeBlock behind an operand; None if it stays in float."""
    while value is not None and (node := value.producer()) is not None:
        if (node.op_type, node.domain) == (QUANTIZE, DOMAIN):
            return node
        if node.op_type not in _BETWEEN:
            return None
        value = node.inputs[0]
    return None


def _constant_operand(source: _Source) -> Operand:
    """A sample of a weight, rows of K."""
    tensor = source.value.const_value
    assert tensor is not None  # it is an initializer
    rows = tensor.numpy()
    taken = np.array(rows[:: stride(*rows.shape)], np.float32, order="C")  # a copy: the file is unmapped
    fmt = for_matrix(get_format(source.format), rows)
    del rows
    release(tensor)
    return Operand(source.uses, fmt, taken)


def _tap(model: ir.Model, sources: Sequence[_Source]) -> None:
    """Leaves out all quantizers, makes samples the outputs, and removes what nobody needs for them."""
    for node in list(model.graph.all_nodes()):
        if (node.op_type, node.domain) == (DEQUANTIZE, DOMAIN) and (quantizer := _quantizer(node.inputs[0])):
            _bypass(node, quantizer.inputs[0])
    model.graph.outputs.clear()
    taps = dict.fromkeys((source.value, "Sample") for source in sources)
    taps |= dict.fromkeys((source.value, "Largest") for source in sources if get_format(source.format).per_tensor)
    for value, op_type in taps:
        tap = ir.node(op_type, [value], domain=_DOMAIN, name=_tap_name(value, op_type))
        (output,) = tap.outputs
        output.name, output.type = _tap_name(value, op_type), ir.TensorType(ir.DataType.FLOAT)
        model.graph.append(tap)
        model.graph.outputs.append(output)
    for body in _BODIES:
        function = ir.from_proto(onnx.parser.parse_function(body))
        assert isinstance(function, ir.Function)
        model.functions[function.identifier()] = function
    model.opset_imports[_DOMAIN] = 1
    RemoveUnusedNodesPass()(model)


def _tap_name(value: ir.Value, op_type: str) -> str:
    """What a tap and its output are called; no exporter has such names."""
    return f"{_DOMAIN}.{op_type}:{value.name}"


def _bypass(decode: ir.Node, value: ir.Value | None) -> None:
    """Gives the readers of a DequantizeBlock what its QuantizeBlock reads, as float32."""
    assert value is not None  # a quantizer reads something
    assert decode.graph is not None
    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT.value}, name=f"{decode.name}.float32")
    old, new = decode.outputs[0], cast.outputs[0]
    new.type, new.shape = ir.TensorType(ir.DataType.FLOAT), old.shape
    decode.graph.insert_before(decode, cast)
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    remove_unused(old)
    new.name = name


def _run(
    model: ir.Model, sources: Sequence[_Source], sample: Mapping[str, Array], threads: int | None, library: bool
) -> Iterator[Operand]:
    """One run of the tapped model."""
    with tempfile.TemporaryDirectory(prefix="mxcompile-") as folder:
        file = Path(folder, "taps.onnx")
        onnx_file.write_model(model, file)
        session = runtime.create_session(file, threads=threads, library=library)
        feeds = EvalModel("the float model", session, "encoder", "").feeds(sample)
        values = {name: runtime.to_value(array) for name, array in feeds.items()}
        found = runtime.run(session, [output.name for output in session.get_outputs()], values)
    for source in sources:
        fmt = get_format(source.format)
        if fmt.per_tensor:
            fmt = fmt.for_tensor(float(found[_tap_name(source.value, "Largest")].numpy()))
        yield Operand(source.uses, fmt, found[_tap_name(source.value, "Sample")].numpy())
