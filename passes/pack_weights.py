"""pack-weights: quantizes constant weights now, so that the file holds codes and scales in their place."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mxcompile.errors import UnsupportedModelError
from mxcompile.formats import BlockTensor, Format, get_format
from mxcompile.ops import DOMAIN, QUANTIZE
from mxcompile.passes.insert_quantize import ROWS_SUFFIX, release
from mxcompile.passes.metadata import LAYER
from mxcompile.passes.rewriting import UniqueNames, is_constant, remove_unused

CHUNK_ELEMENTS: Final = 1 << 18
"""Elements quantized at a time: a few megabytes of scratch memory, most of which stays in the processor's cache."""

_ANONYMOUS: Final = re.compile(r"onnx::.*|\d+|val_\d+")
"""Names that exporters make up when a weight's own name is lost."""


@dataclasses.dataclass(frozen=True)
class PackWeights(ir.passes.InPlacePass):
    """Replaces QuantizeBlock over an initializer by its two results, as initializers.

    1. They are named ``<weight>.codes`` and ``<weight>.scales``, after the layer if the weight's name is made up, and
       registered in the weight's graph. A weight needed twice in the same format is quantized once.
    2. The weight disappears when nobody else reads it.
    3. One weight is in memory at a time, quantized in chunks of rows. Codes and scales stay in memory.

    Walks the main graph and its subgraphs; functions hold no initializers.

    Attributes:
        progress: Called before the first and after each weight with the number of weights done and of all.
    """

    name: ClassVar[str] = "pack-weights"
    progress: Callable[[int, int], None] | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Quantizes weight after weight.

        Raises:
            UnsupportedModelError: A weight holds NaN or Inf.
        """
        names = UniqueNames(model)
        jobs: dict[tuple[ir.Value, str], list[ir.Node]] = {}
        for node in model.graph.all_nodes():
            weight = _weight(node)
            if weight is not None:
                jobs.setdefault((weight, node.attributes["format"].as_string()), []).append(node)
        self._report(0, len(jobs))
        for done, ((weight, fmt), nodes) in enumerate(jobs.items(), start=1):
            _pack(weight, get_format(fmt), nodes, names)
            self._report(done, len(jobs))
        return ir.passes.PassResult(model, bool(jobs))

    def _report(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


def _weight(node: ir.Node) -> ir.Value | None:
    """The matrix that the node quantizes along its last axis, if it is constant."""
    if (node.op_type, node.domain) != (QUANTIZE, DOMAIN) or node.attributes.get_int("axis", -1) not in (-1, 1):
        return None
    value = node.inputs[0]
    return value if is_constant(value) and value is not None and len(value.shape or ()) == 2 else None


def _pack(weight: ir.Value, fmt: Format, nodes: list[ir.Node], names: UniqueNames) -> None:
    """Rules 1 and 2 for one weight and format, and the nodes that quantize it so."""
    tensor, graph, layer = weight.const_value, weight.graph, nodes[0].metadata_props.get(LAYER, nodes[0].name or "")
    assert tensor is not None  # it is an initializer
    assert graph is not None
    packed = quantize_rows(tensor, fmt, f"weight {weight.name} of {layer}")
    release(tensor)
    base = _base_name(weight.name or "", layer)
    for index, (part, array) in enumerate((("codes", packed.codes), ("scales", packed.scales))):
        value = ir.Value(name=names.take(f"{base}.{part}"), const_value=ir.tensor(array))
        value.type, value.shape = ir.TensorType(ir.DataType.UINT8), ir.Shape(array.shape)
        assert value.const_value is not None  # just set
        value.const_value.name = value.name
        graph.register_initializer(value)
        for node in nodes:
            node.outputs[index].replace_all_uses_with(value)
    for node in nodes:
        remove_unused(node.outputs[0])


def quantize_rows(tensor: ir.TensorProtocol, fmt: Format, where: str) -> BlockTensor:
    """Quantizes a constant matrix along its last axis, CHUNK_ELEMENTS at a time.

    Args:
        tensor: float32, float16 or bfloat16 ``[n, k]``; every type is widened exactly.
        fmt: The format.
        where: Names the tensor in the error.

    Raises:
        UnsupportedModelError: NaN or Inf, which would make a whole block NaN.
    """
    rows = tensor.numpy()
    step = max(1, CHUNK_ELEMENTS // rows.shape[1])
    codes, scales = [], []
    fmt = for_matrix(fmt, rows)
    for start in range(0, len(rows), step):
        chunk = np.ascontiguousarray(rows[start : start + step], dtype=np.float32)
        if not np.isfinite(chunk).all():
            row, column = map(int, np.argwhere(~np.isfinite(chunk))[0])
            raise UnsupportedModelError(
                f"{where}: element {row + start} of output, {column} of input is {chunk[row, column]}; "
                "only finite weights can be quantized: repair the model, or leave the layer alone with --exclude"
            )
        part = fmt.quantize(chunk, axis=-1)
        codes.append(part.codes)
        scales.append(part.scales)
    return BlockTensor(np.concatenate(codes), np.concatenate(scales), size=rows.shape[1], axis=1)


def for_matrix(fmt: Format, rows: npt.NDArray[Any]) -> Format:
    """The format with the scale of a whole constant matrix ``[n, k]``, if it has one; CHUNK_ELEMENTS at a time."""
    if not fmt.per_tensor:
        return fmt
    step = max(1, CHUNK_ELEMENTS // rows.shape[1])
    pieces = (rows[start : start + step] for start in range(0, len(rows), step))
    return fmt.for_tensor(max(float(np.abs(piece).max(initial=0)) for piece in pieces))


def _base_name(weight: str, layer: str) -> str:
    """What codes and scales are named after."""
    weight = weight.removesuffix(ROWS_SUFFIX)
    return f"{layer.strip('/').replace('/', '.')}.weight" if _ANONYMOUS.fullmatch(weight) else weight
