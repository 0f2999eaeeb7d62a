"""The keys under which the passes record what they did, in the ``metadata_props`` of nodes and of the model."""

from typing import Final

import onnx_ir as ir

LAYER: Final = "mxcompile.layer"
"""Node: path of the layer it belongs to, such as ``/model/layers.0/self_attn/q_proj``."""

WEIGHTS: Final = "mxcompile.weights"
"""Node: format of the layer's weights. Absent where the layer is left alone."""

ACTIVATIONS: Final = "mxcompile.activations"
"""Node: format of the layer's activations, ``none`` to keep them. Absent where the layer is left alone."""

ATTENTION: Final = "mxcompile.attention"
"""MatMul node: its role in an attention, ``qk`` (queries times keys) or ``pv`` (probabilities times values).

There ACTIVATIONS is the format of the queries or probabilities, WEIGHTS that of the keys or values.
"""

SKIPPED: Final = "mxcompile.skipped"
"""MatMul or Gemm node: why it is left alone, in words for the user."""

PASSES: Final = "mxcompile.passes"
"""Node: comma-separated names of the passes that made or changed it, in order."""


def recorded_passes(node: ir.Node) -> list[str]:
    """Names of the passes that made or changed the node, in order."""
    return [name for name in node.metadata_props.get(PASSES, "").split(",") if name]


def record_pass(node: ir.Node, *names: str) -> None:
    """Adds passes to those that made or changed the node; each stands there once."""
    node.metadata_props[PASSES] = ",".join(dict.fromkeys([*recorded_passes(node), *names]))


def provenance(node: ir.Node, name: str) -> dict[str, str]:
    """Metadata for a node that the pass ``name`` makes for the layer of ``node``."""
    keys = (LAYER, ATTENTION, WEIGHTS, ACTIVATIONS)
    kept = {key: node.metadata_props[key] for key in keys if key in node.metadata_props}
    return kept | {PASSES: name}


def set_metadata(metadata: dict[str, str], values: dict[str, str | None]) -> bool:
    """Writes values into ``metadata``, None removing a key; whether that changed anything."""
    before = dict(metadata)
    for key, value in values.items():
        if value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = value
    return metadata != before
