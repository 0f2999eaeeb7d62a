"""What a compilation did: per layer and in total, for the table on the terminal and the JSON beside the output."""

import dataclasses
from typing import Any

import onnx_ir as ir

from mxcompile.ops import DEQUANTIZE, DOMAIN, MATMUL
from mxcompile.passes.metadata import ACTIVATIONS, LAYER, SKIPPED, WEIGHTS
from mxcompile.passes.rewriting import producer


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One matrix product of the model.

    Attributes:
        model: File name of the model that holds it.
        layer: Path of the layer, or the node's name where it is no linear layer.
        weights: Format of the weights; None if the product is left alone.
        activations: Format of the activations, ``none`` if they stay as they are; None if left alone.
        k: Length of the reduction; None if left alone.
        n: Output features; None if left alone.
        skipped: Why it is left alone; None if it is quantized.
    """

    model: str
    layer: str
    weights: str | None = None
    activations: str | None = None
    k: int | None = None
    n: int | None = None
    skipped: str | None = None


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """What a compilation did.

    Attributes:
        version: Version of mxcompile.
        source: Hub id, folder or file that was compiled.
        task: Task it was exported for; None for an .onnx source.
        output: Where the result is: a file or a folder.
        weights: Format of the weights, by default.
        activations: Format of the activations, by default.
        fused: Whether the matmuls are MatMulBlock.
        layers: Every matrix product.
        bytes_before: Size of all weights before.
        bytes_after: Size of the written model files.
        quantized_weights: Number of weights that were quantized, each counted once.
        quantized_bytes: Size of their codes and scales.
        seconds: Time of each phase: ``export`` (with reading), ``passes``, ``write``.
        peak_memory_bytes: The process' peak resident memory so far, torch included where it exported.
    """

    version: str
    source: str
    task: str | None
    output: str
    weights: str
    activations: str
    fused: bool
    layers: tuple[LayerReport, ...]
    bytes_before: int
    bytes_after: int
    quantized_weights: int
    quantized_bytes: int
    seconds: dict[str, float]
    peak_memory_bytes: int

    @property
    def quantized(self) -> list[LayerReport]:
        """The layers that were quantized."""
        return [layer for layer in self.layers if layer.skipped is None]

    @property
    def skipped(self) -> list[LayerReport]:
        """The products that were left alone."""
        return [layer for layer in self.layers if layer.skipped is not None]

    @property
    def bits_per_weight(self) -> float:
        """Stored bits of a quantized weight, scales included."""
        return 8 * self.quantized_bytes / self.quantized_weights

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values, derived figures included."""
        return {**dataclasses.asdict(self), "bits_per_weight": self.bits_per_weight}


def describe_layers(name: str, model: ir.Model) -> list[LayerReport]:
    """Every matrix product of a compiled model, in graph order.

    Args:
        name: File name of the model.
        model: The model after the passes.
    """
    layers = []
    for node in model.graph.all_nodes():
        metadata = node.metadata_props
        layer = metadata.get(LAYER) or node.name or node.outputs[0].name or ""
        if SKIPPED in metadata:
            layers.append(LayerReport(name, layer, skipped=metadata[SKIPPED]))
        elif (weight := _packed_weight(node)) is not None:
            layers.append(LayerReport(name, layer, metadata[WEIGHTS], metadata[ACTIVATIONS], weight.k, weight.n))
    return layers


def quantized_size(model: ir.Model) -> tuple[int, int]:
    """Number of quantized weights, and bytes of their codes and scales; shared ones count once."""
    found = (_packed_weight(node) for node in model.graph.all_nodes())
    weights = {weight.codes: weight for weight in found if weight is not None}.values()
    return sum(weight.k * weight.n for weight in weights), sum(weight.nbytes for weight in weights)


@dataclasses.dataclass(frozen=True)
class _PackedWeight:
    codes: ir.Value
    scales: ir.Value
    k: int

    @property
    def n(self) -> int:
        return self._tensor(self.codes).shape.numpy()[0]

    @property
    def nbytes(self) -> int:
        return self._tensor(self.codes).nbytes + self._tensor(self.scales).nbytes

    @staticmethod
    def _tensor(value: ir.Value) -> ir.TensorProtocol:
        assert value.const_value is not None  # pack-weights made it
        return value.const_value


def _packed_weight(node: ir.Node) -> _PackedWeight | None:
    """The weight of a quantized layer: of MatMulBlock, or of a MatMul that was not fused."""
    if WEIGHTS not in node.metadata_props:
        return None
    if (node.op_type, node.domain) == (MATMUL, DOMAIN):
        codes, scales, k = node.inputs[1], node.inputs[2], node.attributes["k"]
    elif (node.op_type, node.domain) == ("MatMul", ""):
        transpose = producer(node.inputs[1], "Transpose")
        decode = producer(transpose.inputs[0], DEQUANTIZE, DOMAIN) if transpose is not None else None
        if decode is None:
            return None
        (codes, scales), k = decode.inputs, decode.attributes["size"]
    else:
        return None
    return None if codes is None or scales is None else _PackedWeight(codes, scales, k.as_int())
