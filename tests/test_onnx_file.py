"""Reading ONNX files without their weights in memory."""

import tracemalloc

import numpy as np
import onnx
import onnx.reference
import pytest
from weight_models import (
    GRAPH_BYTES,
    MIB,
    external_tensors,
    model_with_subgraphs,
    model_with_weights,
    saved,
    tensor_proto,
)

from mxcompile import onnx_file
from mxcompile.errors import ExportError, UnsupportedModelError


def test_big_weights_stay_in_a_single_file(tmp_path):
    path = saved(model_with_subgraphs(), tmp_path / "m.onnx")
    tensors = external_tensors(onnx_file.read_model(path))
    assert sorted(tensors) == ["inner", "outer"]
    assert all(t.path == str(path.resolve()) and t.raw is None for t in tensors.values())


def test_weights_read_lazily_have_the_values_of_the_file(tmp_path):
    proto = model_with_subgraphs()
    tensor = external_tensors(onnx_file.read_model(saved(proto, tmp_path / "m.onnx")))["outer"]
    np.testing.assert_array_equal(tensor.numpy(), onnx.numpy_helper.to_array(proto.graph.initializer[0]))


def test_small_and_string_weights_stay_in_the_model(tmp_path):
    strings = np.array(["a" * 2000, "b"], dtype=object)
    path = saved(model_with_weights(np.zeros(255, np.float32), strings), tmp_path / "m.onnx")
    assert not external_tensors(onnx_file.read_model(path))


def test_float_data_is_read(tmp_path):
    proto = onnx.helper.make_tensor("", onnx.TensorProto.FLOAT, [1000], np.arange(1000.0))
    path = saved(model_with_weights(proto), tmp_path / "m.onnx")
    weight = onnx_file.read_model(path).graph.initializers["w0"].const_value
    np.testing.assert_array_equal(weight.numpy(), np.arange(1000, dtype=np.float32))


def test_reading_a_single_file_allocates_no_weights(tmp_path):
    path = saved(model_with_weights(*(np.ones(MIB, np.float32) for _ in range(8))), tmp_path / "m.onnx")
    tracemalloc.start()
    try:
        onnx_file.read_model(path)
        assert tracemalloc.get_traced_memory()[1] < GRAPH_BYTES
    finally:
        tracemalloc.stop()


def test_external_data_is_located_from_another_directory(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    saved(model_with_subgraphs(), folder / "m.onnx", save_as_external_data=True, location="m.bin")
    monkeypatch.chdir(tmp_path)
    model = onnx_file.read_model("model/m.onnx")
    monkeypatch.chdir("/")
    assert external_tensors(model)["outer"].path == str((folder / "m.bin").resolve())
    assert external_tensors(model)["outer"].numpy().shape == (32, 32)


def test_a_hub_cache_of_symbolic_links_is_read(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    proto = model_with_subgraphs()
    saved(proto, blobs / "m.onnx", save_as_external_data=True, location="m.bin")
    for name in ("m.onnx", "m.bin"):
        (blobs / name).rename(blobs / f"hash-{name}")
        (snapshot / name).symlink_to(blobs / f"hash-{name}")
    assert external_tensors(onnx_file.read_model(snapshot / "m.onnx"))["outer"].numpy().shape == (32, 32)


def test_an_external_tensor_attribute_is_loaded(tmp_path):
    values = np.arange(600, dtype=np.float32)
    (tmp_path / "c.bin").write_bytes(values.tobytes())
    constant = tensor_proto(values, "c")
    onnx.external_data_helper.set_external_data(constant, "c.bin", 0, values.nbytes)
    constant.ClearField("raw_data")
    proto = model_with_weights(values)
    proto.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=constant))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = onnx_file.read_model(tmp_path / "m.onnx")
    onnx_file.write_model(model, tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.node[1].attribute[0].t
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(written), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"This is a text file, and no model at all.\n", "not an ONNX file"),
        (np.random.default_rng(0).bytes(5000), "not an ONNX file"),
        (b"\x08\x0a", "no graph"),
        (b"\x3a\x02\x0a\x00", "no opset"),
        (b"\x38\x01", "not a message"),
    ],
    ids=["empty", "lfs", "text", "random", "no-graph", "no-opset", "wrong-type"],
)
def test_what_is_not_onnx_is_refused(tmp_path, content, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=message) as caught:
        onnx_file.read_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = saved(model_with_subgraphs(), tmp_path / "m.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ExportError, match="cut off"):
        onnx_file.read_model(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(ExportError, match="No such file"):
        onnx_file.read_model(tmp_path / "absent.onnx")
    with pytest.raises(ExportError, match="is a directory"):
        onnx_file.read_model(tmp_path)


def test_a_missing_data_file_is_named(tmp_path):
    path = saved(model_with_subgraphs(), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin")
    (tmp_path / "m.bin").unlink()
    with pytest.raises(ExportError, match=r"m\.bin, which is missing"):
        onnx_file.read_model(path)


def test_a_short_data_file_is_refused(tmp_path):
    path = saved(model_with_subgraphs(), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin")
    data = tmp_path / "m.bin"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ExportError, match=r"ends at byte \d+ of .*m\.bin, which has \d+ bytes"):
        onnx_file.read_model(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname"])
def test_a_data_file_outside_the_folder_is_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    proto = model_with_weights(np.zeros(1024, np.float32))
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], location, 0, 4096)
    proto.graph.initializer[0].ClearField("raw_data")
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ExportError, match="outside the model's folder"):
        onnx_file.read_model(folder / "m.onnx")


def test_a_weight_of_the_wrong_length_is_refused(tmp_path):
    proto = model_with_weights(np.zeros(1024, np.float32))
    proto.graph.initializer[0].dims[0] = 1000
    with pytest.raises(ExportError, match=r"`w0` has 4096 bytes, but FLOAT\[1000\] needs 4000"):
        onnx_file.read_model(saved(proto, tmp_path / "m.onnx"))


@pytest.mark.parametrize("opset", [10, 22])
def test_an_opset_that_cannot_be_converted_is_refused(tmp_path, opset):
    proto = model_with_weights(np.zeros(4, np.float32))
    proto.opset_import[0].version = opset
    path = saved(proto, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModelError, match=rf"opset {opset} is not in 11\.\.21"):
        onnx_file.read_model(path)
    assert onnx_file.read_model(path, compiled=True).opset_imports[""] == opset


@pytest.mark.parametrize("mark", ["domain", "metadata"])
def test_a_compiled_model_is_refused_unless_asked_for(tmp_path, mark):
    proto = model_with_weights(np.zeros(4, np.float32))
    if mark == "domain":
        proto.opset_import.add(domain="mxcompile", version=1)
    else:
        proto.metadata_props.add(key="mxcompile.version", value="0.1.0")
    path = saved(proto, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModelError, match="already compiled"):
        onnx_file.read_model(path)
    assert onnx_file.read_model(path, compiled=True).graph.initializers


# Writing
