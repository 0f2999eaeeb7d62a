"""Reading and writing ONNX files without their weights in memory."""

import resource
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort
import pytest

from mxcompile import onnx_file
from mxcompile.errors import ExportError, UnsupportedModelError

MIB = 1 << 20
# What Python and protobuf allocate for a small graph, with room: far below the weights of these tests.
GRAPH_BYTES = MIB

MODEL_TEXT = """
<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
g (float[n,32] x, bool c) => (float[n,32] y) <float[32,32] outer, int64[2] shape = {-1, 32}>
{
    h = local.Twice(x)
    r = Reshape(h, shape)
    z = If(c) <
        then_branch = then_graph () => (float[n,32] a) <float[32,32] inner> {
            t = MatMul(r, inner)
            a = MatMul(t, outer)
        },
        else_branch = else_graph () => (float[n,32] b) { b = MatMul(r, outer) }
    >
    y = Identity(z)
}
<domain: "local", opset_import: ["" : 21]>
Twice (v) => (w) { w = Add(v, v) }
"""


def tensor_proto(array: np.ndarray, name: str) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(array, name)


def model_with_subgraphs() -> onnx.ModelProto:
    """y = 2x [@ inner if c] @ outer: a function, an If, a weight in the main graph and one in a branch."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(MODEL_TEXT)
    (branches,) = (node for node in model.graph.node if node.op_type == "If")
    then_graph = next(a.g for a in branches.attribute if a.name == "then_branch")
    for graph, name in ((model.graph, "outer"), (then_graph, "inner")):
        del graph.initializer[:]
        graph.initializer.append(tensor_proto(rng.standard_normal((32, 32), np.float32), name))
    model.graph.initializer.append(tensor_proto(np.array([-1, 32]), "shape"))
    return model


def model_with_weights(*arrays: np.ndarray | onnx.TensorProto) -> onnx.ModelProto:
    """One Identity for each weight w0, w1, ...: every weight is an output."""
    weights = [a if isinstance(a, onnx.TensorProto) else tensor_proto(a, "") for a in arrays]
    nodes, outputs = [], []
    for index, weight in enumerate(weights):
        weight.name = f"w{index}"
        nodes.append(onnx.helper.make_node("Identity", [weight.name], [f"y{index}"]))
        outputs.append(onnx.helper.make_tensor_value_info(f"y{index}", weight.data_type, weight.dims))
    graph = onnx.helper.make_graph(nodes, "g", [], outputs, weights)
    return onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)])


def saved(model: onnx.ModelProto, path: Path, **options: object) -> Path:
    onnx.save(model, path, **options)
    return path


def run_branches(path: Path) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 1, 96, dtype=np.float32).reshape(3, 32)
    return [session.run(None, {"x": x, "c": np.array(c)})[0] for c in (True, False)]


def external_tensors(model: ir.Model) -> dict[str, ir.ExternalTensor]:
    values = (v for g in model.graphs() for v in g.initializers.values())
    return {v.name: v.const_value for v in values if isinstance(v.const_value, ir.ExternalTensor)}


# Reading


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


@pytest.mark.parametrize("max_inline_bytes", [onnx_file.MAX_INLINE_BYTES, 0], ids=["inline", "external"])
def test_subgraphs_and_functions_survive(tmp_path, max_inline_bytes):
    source = saved(model_with_subgraphs(), tmp_path / "m.onnx")
    out = tmp_path / "out.onnx"
    onnx_file.write_model(onnx_file.read_model(source), out, max_inline_bytes=max_inline_bytes)
    onnx.checker.check_model(out, full_check=True)
    assert [f.name for f in onnx.load(out).functions] == ["Twice"]
    assert ir.load(out).graph.initializers["outer"].const_value.numpy().shape == (32, 32)
    for expected, actual in zip(run_branches(source), run_branches(out), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("nbytes", [0, 1, 1023, 1024, 1025, 16_383, 16_384, 70_000, 2_097_152])
def test_the_file_is_what_protobuf_itself_would_write(tmp_path, nbytes):
    """Sizes on both sides of the streaming threshold and of every length of a length prefix."""
    expected = model_with_weights(np.full(nbytes, 7, np.uint8), np.arange(3), np.ones(600, np.float32))
    out = tmp_path / "out.onnx"
    onnx_file.write_model(ir.from_proto(expected), out)
    written = onnx.load(out)
    assert out.read_bytes() == written.SerializeToString(deterministic=True)
    assert list(written.graph.initializer) == list(expected.graph.initializer)


@pytest.mark.parametrize("producer", ["", "x", "xx", "xxx"])
def test_big_weights_stand_at_multiples_of_their_element(tmp_path, producer):
    """Behind a number of bytes with any remainder."""
    sizes = (onnx_file.MAPPED_BYTES, onnx_file.MAPPED_BYTES + 2, 1 << 18)
    dtypes = (np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int64, np.uint8, np.complex128)
    arrays = [np.full(size // 2, 1, dtype) for size in sizes for dtype in dtypes]
    expected = model_with_weights(*arrays, np.full(17, 1, np.uint8))
    expected.producer_name = producer
    out = tmp_path / "out.onnx"
    onnx_file.write_model(ir.from_proto(expected), out)
    assert list(onnx.load(out).graph.initializer) == list(expected.graph.initializer)
    big = [t for t in external_tensors(onnx_file.read_model(out)).values() if t.nbytes >= onnx_file.MAPPED_BYTES]
    assert len(big) > len(arrays) // 2
    for tensor in big:
        if tensor.dtype.itemsize <= 8:
            assert tensor.offset % tensor.dtype.itemsize == 0, tensor.name


def test_every_dtype_survives(tmp_path):
    rng = np.random.default_rng(0)
    floats = rng.standard_normal(3001).astype(np.float32)
    arrays = [floats.astype(d) for d in (np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2)]
    arrays += [(floats * 3).astype(d) for d in (np.int8, np.uint16, np.int32, np.int64, bool, np.complex64)]
    arrays += [np.clip(floats * 3, -8, 7).astype(ml_dtypes.int4), abs(floats).astype(ml_dtypes.uint4)]
    expected = model_with_weights(*arrays, np.array(["x" * 3000, "é"], dtype=object))
    for read in (ir.from_proto, lambda m: onnx_file.read_model(saved(m, tmp_path / "m.onnx"))):
        onnx_file.write_model(read(expected), tmp_path / "out.onnx")
        assert list(onnx.load(tmp_path / "out.onnx").graph.initializer) == list(expected.graph.initializer)


def test_a_non_contiguous_array_is_written_in_row_order(tmp_path):
    array = np.arange(1200, dtype=np.float32).reshape(30, 40).T
    model = ir.from_proto(model_with_weights(np.zeros((40, 30), np.float32)))
    model.graph.initializers["w0"].const_value = ir.Tensor(array)
    onnx_file.write_model(model, tmp_path / "out.onnx")
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.initializer[0]), array
    )


def test_large_models_get_an_aligned_data_file_beside_them(tmp_path):
    arrays = [np.arange(n, dtype=np.float32) for n in (5000, 3, 700)]
    out = tmp_path / "out.onnx"
    onnx_file.write_model(ir.from_proto(model_with_weights(*arrays)), out, max_inline_bytes=10_000)
    weights = onnx.load(out, load_external_data=False).graph.initializer
    places = [{e.key: e.value for e in w.external_data} for w in weights]
    assert places == [
        {"location": "out.onnx.data", "offset": "0", "length": "20000"},
        {},
        {"location": "out.onnx.data", "offset": "20480", "length": "2800"},
    ]
    for weight, array in zip(onnx.load(out).graph.initializer, arrays, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), array)
    assert sorted(external_tensors(onnx_file.read_model(out))) == ["w0", "w2"]


def test_the_model_is_unchanged_and_its_weights_are_never_loaded(tmp_path):
    model = onnx_file.read_model(saved(model_with_subgraphs(), tmp_path / "m.onnx"))
    before = external_tensors(model)
    onnx_file.write_model(model, tmp_path / "out.onnx")
    after = external_tensors(model)
    assert all(after[name] is before[name] and after[name].raw is None for name in before)


def test_lazy_weights_are_evaluated_one_at_a_time(tmp_path):
    count, shape = 8, ir.Shape([MIB])
    model = ir.from_proto(model_with_weights(*(np.zeros(MIB, np.float32) for _ in range(count))))
    for index, value in enumerate(model.graph.initializers.values()):
        value.const_value = ir.LazyTensor(
            lambda index=index: ir.Tensor(np.full(MIB, index, np.float32)), ir.DataType.FLOAT, shape
        )
    tracemalloc.start()
    try:
        onnx_file.write_model(model, tmp_path / "out.onnx")
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB + GRAPH_BYTES
    finally:
        tracemalloc.stop()
    last = onnx.load(tmp_path / "out.onnx").graph.initializer[-1]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(last), np.full(MIB, count - 1, np.float32))


def test_a_model_can_replace_the_file_it_was_read_from(tmp_path):
    path = saved(model_with_subgraphs(), tmp_path / "m.onnx")
    expected = run_branches(path)
    onnx_file.write_model(onnx_file.read_model(path), path)
    for new, old in zip(run_branches(path), expected, strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("max_inline_bytes", [onnx_file.MAX_INLINE_BYTES, 0], ids=["inline", "external"])
def test_a_full_disk_leaves_the_old_file_and_no_temporaries(tmp_path, max_inline_bytes):
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    model = ir.from_proto(model_with_weights(np.ones(MIB, np.float32)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))  # the fourth part of the weight
    try:
        with pytest.raises(ExportError, match=r"out\.onnx: could not be written: .*nothing was left behind"):
            onnx_file.write_model(model, out, max_inline_bytes=max_inline_bytes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]
    assert out.read_bytes() == b"old"


def test_an_interrupt_leaves_no_temporaries(tmp_path):
    def interrupt() -> ir.Tensor:
        raise KeyboardInterrupt

    model = ir.from_proto(model_with_weights(np.ones(MIB, np.float32)))
    model.graph.initializers["w0"].const_value = ir.LazyTensor(interrupt, ir.DataType.FLOAT, ir.Shape([MIB]))
    with pytest.raises(KeyboardInterrupt):
        onnx_file.write_model(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_a_weight_of_another_size_than_its_shape_is_a_bug_and_leaves_nothing(tmp_path):
    model = ir.from_proto(model_with_weights(np.ones(MIB, np.float32)))
    model.graph.initializers["w0"].const_value = ir.LazyTensor(
        lambda: ir.Tensor(np.ones(3, np.float32)), ir.DataType.FLOAT, ir.Shape([MIB])
    )
    with pytest.raises(ValueError, match="`w0`: 12 bytes, its shape needs 4194304"):
        onnx_file.write_model(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_hold_the_file_are_refused(tmp_path):
    model = ir.from_proto(model_with_weights(np.ones(4, np.float32)))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="is a directory"):
        onnx_file.write_model(model, tmp_path)
    for parent in ("absent", "file"):
        with pytest.raises(ExportError, match=f"there is no directory .*{parent}; create it first"):
            onnx_file.write_model(model, tmp_path / parent / "out.onnx")


def test_the_file_gets_the_permissions_of_any_new_file(tmp_path):
    onnx_file.write_model(ir.from_proto(model_with_weights(np.ones(4, np.float32))), tmp_path / "out.onnx")
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode
