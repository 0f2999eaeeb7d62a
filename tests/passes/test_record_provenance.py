"""record-provenance: what the model was made of."""

import json

from models import linear

from mxcompile.passes import PASSES, RecordProvenance


def test_fields_become_metadata() -> None:
    model = linear()
    generation = json.dumps({"eos_token_id": [2]})
    record = RecordProvenance("1.2.3", "amxfp4", "org/name", "feature-extraction", "{}", generation)
    assert record(model).modified
    assert model.metadata_props == {
        "mxcompile.version": "1.2.3",
        "mxcompile.format": "amxfp4",
        "mxcompile.source": "org/name",
        "mxcompile.task": "feature-extraction",
        "mxcompile.tokenizer": "{}",
        "mxcompile.generation": generation,
    }
    assert not record(model).modified


def test_missing_fields_and_the_models_own_metadata_are_left_alone() -> None:
    model = linear()
    model.metadata_props["author"] = "somebody"
    RecordProvenance("1", "mxfp4", "m.onnx")(model)
    assert set(model.metadata_props) == {"author", "mxcompile.version", "mxcompile.format", "mxcompile.source"}


def test_another_version_replaces_the_record() -> None:
    model = linear()
    RecordProvenance("1", "mxfp4", "m.onnx")(model)
    assert RecordProvenance("2", "mxfp4", "m.onnx")(model).modified
    assert model.metadata_props["mxcompile.version"] == "2"


def test_every_pass_stands_in_the_table_under_its_own_name() -> None:
    assert all(name == each.name for name, each in PASSES.items())
