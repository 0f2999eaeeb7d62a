"""The compiler's passes, one a file; `mxcompile.compiler.build_pipeline` puts those of a compilation in order.

A pass is a frozen dataclass whose fields are its options. It changes the model in place, says whether it did, does
nothing a second time, and leaves its name on every node that it makes or changes.
"""

from typing import Final

import onnx_ir as ir

from mxcompile.passes.annotate_cost import AnnotateCost
from mxcompile.passes.attach_functions import AttachFunctions
from mxcompile.passes.fuse_matmul_block import FuseMatMulBlock
from mxcompile.passes.insert_attention import InsertAttention
from mxcompile.passes.insert_quantize import InsertQuantize
from mxcompile.passes.normalize_linears import NormalizeLinears
from mxcompile.passes.pack_cache import PackCache
from mxcompile.passes.pack_weights import PackWeights
from mxcompile.passes.record_provenance import RecordProvenance
from mxcompile.passes.select_formats import SelectFormats

__all__ = [
    "PASSES",
    "AnnotateCost",
    "AttachFunctions",
    "FuseMatMulBlock",
    "InsertAttention",
    "InsertQuantize",
    "NormalizeLinears",
    "PackCache",
    "PackWeights",
    "RecordProvenance",
    "SelectFormats",
]

PASSES: Final[dict[str, type[ir.passes.InPlacePass]]] = {
    "normalize-linears": NormalizeLinears,
    "select-formats": SelectFormats,
    "insert-quantize": InsertQuantize,
    "insert-attention": InsertAttention,
    "pack-cache": PackCache,
    "pack-weights": PackWeights,
    "fuse-matmul-block": FuseMatMulBlock,
    "attach-functions": AttachFunctions,
    "record-provenance": RecordProvenance,
    "annotate-cost": AnnotateCost,
}
"""Every pass by its name, in the order of the pipeline."""
