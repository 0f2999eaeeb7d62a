"""record-provenance: what the model was made of and by which version, in its metadata."""

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from mxcompile.passes.metadata import set_metadata


@dataclasses.dataclass(frozen=True)
class RecordProvenance(ir.passes.InPlacePass):
    """Writes the fields that are not None into the model's ``metadata_props``, as ``mxcompile.<field>``.

    What each node went through is recorded by the passes that changed it (``mxcompile.passes``).

    Attributes:
        version: Version of mxcompile.
        format: The formats of the settings, in one word.
        source: Where the model came from: a hub id, or the name of a folder or file.
        task: The export task, such as ``text-generation-with-past``.
        tokenizer: Text of tokenizer.json.
        generation: JSON object with the ids that generation needs.
    """

    name: ClassVar[str] = "record-provenance"
    version: str
    format: str
    source: str
    task: str | None = None
    tokenizer: str | None = None
    generation: str | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Writes the fields."""
        fields = {f"mxcompile.{key}": value for key, value in dataclasses.asdict(self).items() if value is not None}
        return ir.passes.PassResult(model, set_metadata(model.metadata_props, fields))
