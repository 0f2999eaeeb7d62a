"""What a compilation did: per layer and in total, for the table on the terminal and the JSON beside the output."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import onnx_ir as ir

from mxcompile.kv_cache import METADATA
from mxcompile.kv_cache import SKIPPED as NOT_PACKED
from mxcompile.ops import DEQUANTIZE, DOMAIN, MATMUL
from mxcompile.passes.metadata import ACTIVATIONS, ATTENTION, LAYER, SKIPPED, WEIGHTS
from mxcompile.passes.rewriting import producer


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One matrix product of the model.

    Attributes:
        model: File name of the model that holds it.
        layer: Path of the layer, or the node's name where it is no linear layer.
        weights: Format of the weights, or of an attention's keys or values; None if the product is left alone.
        activations: Format of the other operand, ``none`` if it stays as it is; None if left alone.
        attention: ``qk`` for queries times keys, ``pv`` for probabilities times values; None for a linear layer.
        k: Length of a quantized linear layer's reduction; None of any other product.
        n: Its output features.
        skipped: Why it is left alone; None if it is quantized.
    """

    model: str
    layer: str
    weights: str | None = None
    activations: str | None = None
    attention: str | None = None
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
        kv_cache: What the packed key-value cache holds, as in the metadata `mxcompile.kv_cache` (docs/kv-cache.md);
            None if there is none.
        kv_cache_skipped: Tensors of the cache that stay in float although it was to be packed, with the reason.
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
    kv_cache: dict[str, Any] | None
    kv_cache_skipped: dict[str, str]
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
    def bits_per_weight(self) -> float | None:
        """Stored bits of a quantized weight, scales included; None if attention alone is quantized."""
        return 8 * self.quantized_bytes / self.quantized_weights if self.quantized_weights else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values, derived figures included."""
        return {**dataclasses.asdict(self), "bits_per_weight": self.bits_per_weight}


def describe_layers(name: str, model: ir.Model) -> list[LayerReport]:
    """Every matrix product of a compiled model, in graph order.

    Args:
        name: File name of the model.
        model: The model after the passes.
    """
    found = (describe_product(name, node) for node in model.graph.all_nodes())
    return [layer for layer in found if layer is not None]


def describe_product(name: str, node: ir.Node) -> LayerReport | None:
    """The matrix product that a node of a compiled model is; None if it is none.

    Args:
        name: File name of the model.
        node: The node, after the passes.
    """
    metadata = node.metadata_props
    layer = metadata.get(LAYER) or node.name or node.outputs[0].name or ""
    attention = metadata.get(ATTENTION)
    formats = metadata.get(WEIGHTS), metadata.get(ACTIVATIONS)
    if SKIPPED in metadata:
        return LayerReport(name, layer, attention=attention, skipped=metadata[SKIPPED])
    if attention is not None and node.op_type in ("MatMul", MATMUL):  # its quantizers say so too
        return LayerReport(name, layer, *formats, attention)
    if (weight := _packed_weight(node)) is not None:
        return LayerReport(name, layer, *formats, k=weight.k, n=weight.n)
    return None


def weight_bits(node: ir.Node) -> float | None:
    """Stored bits of a weight of a quantized linear layer, scales included; None of any other node."""
    weight = _packed_weight(node)
    return None if weight is None else 8 * weight.nbytes / (weight.k * weight.n)


def describe_cache(models: Iterable[ir.Model]) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """What the packed key-value cache of the models holds, and why tensors of it stay in float."""
    packed: dict[str, Any] | None = None
    skipped: dict[str, str] = {}
    for model in models:
        if METADATA in model.metadata_props:
            packed = json.loads(model.metadata_props[METADATA])
        skipped |= json.loads(model.metadata_props.get(NOT_PACKED, "{}"))
    return packed, skipped


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
    if WEIGHTS not in node.metadata_props or ATTENTION in node.metadata_props:
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
