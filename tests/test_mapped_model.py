"""Sessions whose weights are mapped from the .onnx file itself."""

import mmap
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from mxcompile import compiler, mapped_model, onnx_file, runtime
from mxcompile.errors import MxCompileError
from mxcompile.onnx_file import MAPPED_BYTES

ROWS, FEATURES = 300, 512
IDS = np.arange(12).reshape(2, 6) * 7


def plain_model() -> onnx.ModelProto:
    """An embedding and two linear layers, the second with the weights of the first; all of it to be mapped."""
    rng = np.random.default_rng(0)
    weights = {"embedding": (ROWS, FEATURES), "w": (FEATURES, FEATURES)}
    initializers = [
        numpy_helper.from_array(rng.standard_normal(shape, np.float32), name) for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Gather", ["embedding", "ids"], ["x"], "gather"),
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "second"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "s"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "s", FEATURES])
    graph = helper.make_graph(nodes, "g", [ids], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled model in one file, of which little but weights is left. Not to be changed."""
    folder = tmp_path_factory.mktemp("mapped")
    onnx.save(plain_model(), folder / "plain.onnx")
    compiler.compile_model(folder / "plain.onnx", format="amxfp4", output=folder / "model.onnx", include=["*"])
    return folder / "model.onnx"


@pytest.fixture
def model(compiled: Path, tmp_path: Path) -> Path:
    """A copy of it that is nobody else's."""
    return Path(shutil.copy(compiled, tmp_path / "model.onnx"))


def plain_session(path: Path) -> ort.InferenceSession:
    """A session as onnxruntime itself gives it, from the file."""
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(runtime.custom_ops_library()))
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def output(session: ort.InferenceSession) -> np.ndarray:
    return session.run(None, {"ids": IDS})[0]


def mapped_kilobytes(path: Path, what: str) -> list[int]:
    """``Size`` or ``Rss`` of each of the mappings of a file in this process."""
    found = []
    smaps = Path("/proc/self/smaps").read_text("utf-8")
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE)[1:]:
        head, *lines = mapping.splitlines()
        if head.endswith(f" {path.resolve()}"):
            found += [int(line.split()[1]) for line in lines if line.startswith(f"{what}:")]
    return found


def read(path: Path) -> mapped_model.MappedModel | None:
    return mapped_model.read_mapped(path, absolute=False)


# The session ---------------------------------------------------------------------------------------------------------


def test_outputs_are_those_of_the_file_bit_for_bit(model: Path) -> None:
    np.testing.assert_array_equal(output(runtime.create_session(model)), output(plain_session(model)))


def test_floats_that_are_mapped_give_the_same_bits(tmp_path: Path) -> None:
    for producer in ("", "x" * 4, "x" * 8, "x" * 12):
        proto = plain_model()
        proto.producer_name = producer
        path = tmp_path / "plain.onnx"
        onnx_file.write_model(ir.from_proto(proto), path)
        session = runtime.create_session(path)
        assert mapped_kilobytes(path, "Size")
        np.testing.assert_array_equal(output(session), output(plain_session(path)))


def test_big_weights_are_mapped_and_given_back_once_packed(model: Path) -> None:
    session = runtime.create_session(model)
    sizes = mapped_kilobytes(model, "Size")
    assert sum(sizes) * 1024 >= FEATURES * FEATURES // 2 + ROWS * FEATURES * 4
    pages = 2 * mmap.PAGESIZE // 1024  # at the ends of a weight; what else stands there is not the weight's
    assert sum(mapped_kilobytes(model, "Rss")) <= pages * len(sizes)
    del session
    assert not mapped_kilobytes(model, "Size")


def test_without_the_library_the_file_is_read(model: Path) -> None:
    session = runtime.create_session(model, library=False)
    assert not mapped_kilobytes(model, "Size")
    assert output(session).shape == (2, 6, FEATURES)


def test_the_metadata_are_those_of_the_file(model: Path) -> None:
    ours, theirs = (create(model).get_modelmeta() for create in (runtime.create_session, plain_session))
    names = ("producer_name", "graph_name", "domain", "description", "version", "custom_metadata_map")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    assert "mxcompile.version" in ours.custom_metadata_map


def test_a_session_can_be_opened_again_by_onnxruntime(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = runtime.create_session(model)
    expected = output(session)
    monkeypatch.chdir("/")
    session.set_providers(["CPUExecutionProvider"])
    np.testing.assert_array_equal(output(session), expected)


@pytest.mark.parametrize("name", ["model.onnx", "two words.onnx", "größe 模型.onnx", "a'b\\c%20;d.onnx"])
def test_any_path_is_mapped(
    name: str, model: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder: ü"
    folder.mkdir()
    moved = model.rename(folder / name)
    link = tmp_path / "elsewhere" / "link.onnx"
    link.parent.mkdir()
    link.symlink_to(moved)
    monkeypatch.chdir(folder)
    expected = output(plain_session(compiled))
    for path in (moved, Path(name), Path("..", folder.name, name), link):
        session = runtime.create_session(str(path))
        assert mapped_kilobytes(moved, "Size")
        np.testing.assert_array_equal(output(session), expected)


def test_a_file_of_that_name_in_the_current_folder_is_another_file(
    model: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / model.name).write_bytes(bytes(model.stat().st_size))
    monkeypatch.chdir(other)
    np.testing.assert_array_equal(output(runtime.create_session(model)), output(plain_session(compiled)))


def test_a_file_that_is_replaced_meanwhile_is_opened_anew(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto, new = onnx.load(model), tmp_path / "new.onnx"
    embedding = next(t for t in proto.graph.initializer if t.name == "embedding")
    embedding.raw_data = (-numpy_helper.to_array(embedding)).tobytes()
    new.write_bytes(proto.SerializeToString())
    expected = output(plain_session(new))

    def replace_after(path: Path, *, absolute: bool) -> mapped_model.MappedModel | None:
        found = read_mapped(path, absolute=absolute)
        new.replace(path)
        return found

    read_mapped = mapped_model.read_mapped
    monkeypatch.setattr(mapped_model, "read_mapped", replace_after)
    np.testing.assert_array_equal(output(runtime.create_session(model)), expected)


def test_a_file_that_is_gone_is_not_current(model: Path) -> None:
    found = read(model)
    assert found is not None
    assert found.is_current()
    model.unlink()
    assert not found.is_current()


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """What is said of a file that cannot be opened, with mapping and without."""

    def message(path: Path) -> str:
        with pytest.raises(MxCompileError) as caught:
            runtime.create_session(path)
        return f"{caught.type.__name__}: {caught.value}"

    def ask(path: Path) -> list[str]:
        with_mapping = message(path)
        with monkeypatch.context() as context:
            context.setattr(mapped_model, "read_mapped", lambda path, absolute: None)
            return [with_mapping, message(path)]

    return ask


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_no_model(share: float, model: Path, messages: Callable[[Path], list[str]]) -> None:
    whole = model.read_bytes()
    model.write_bytes(whole[: int(len(whole) * share)])
    mapped, unmapped = messages(model)
    assert mapped == unmapped
    assert mapped.startswith(f"ExportError: {model}: cannot be read as an ONNX model")


def test_a_weight_of_another_size_is_refused(model: Path, messages: Callable[[Path], list[str]]) -> None:
    proto = onnx.load(model)
    codes = next(t for t in proto.graph.initializer if t.name.endswith(".codes"))
    codes.raw_data = codes.raw_data[:-1]
    model.write_bytes(proto.SerializeToString())
    mapped, unmapped = messages(model)
    assert mapped == unmapped
    assert mapped.startswith("UnsupportedModelError")


def test_an_op_that_does_not_exist_is_named(
    model: Path, messages: Callable[[Path], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    proto = onnx.load(model)
    proto.graph.node[0].op_type = "Abacus"
    model.write_bytes(proto.SerializeToString())
    mapped, unmapped = messages(model)
    assert mapped == unmapped
    assert "Abacus" in mapped
    assert capfd.readouterr() == ("", "")


# What is mapped ------------------------------------------------------------------------------------------------------


def weights(path: Path) -> dict[str, TensorProto]:
    found = read(path)
    assert found is not None
    return {tensor.name: tensor for tensor in onnx.ModelProto.FromString(found.content).graph.initializer}


def test_only_the_place_of_a_mapped_weight_is_new(model: Path) -> None:
    found, whole = read(model), onnx.load(model)
    assert found is not None
    skeleton = onnx.ModelProto.FromString(found.content)
    mapped = [t for t in skeleton.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    assert sum(t.data_type == TensorProto.FLOAT for t in mapped) == 1
    assert sum(t.data_type == TensorProto.UINT8 for t in mapped) >= 1
    onnx.external_data_helper.load_external_data_for_model(skeleton, str(model.parent))
    for tensor in skeleton.graph.initializer:
        tensor.ClearField("data_location")
    assert skeleton == whole


def test_small_weights_are_not_mapped(model: Path) -> None:
    for tensor in weights(model).values():
        size = numpy_helper.to_array(tensor, str(model.parent)).nbytes
        assert (tensor.data_location == TensorProto.EXTERNAL) == (size >= MAPPED_BYTES)


def one_weight(path: Path, array: np.ndarray, doc: str = "") -> Path:
    """A file with a weight as its output."""
    weight = numpy_helper.from_array(array, "w")
    weight.doc_string = doc
    y = helper.make_tensor_value_info("y", weight.data_type, weight.dims)
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], [weight])
    path.write_bytes(helper.make_model(graph, producer_name=doc).SerializeToString())
    return path


def test_floats_are_mapped_where_they_are_aligned(tmp_path: Path) -> None:
    """Each further byte before the weight moves it by one."""
    for dtype, of in ((np.float32, 4), (np.float16, 2), (np.uint8, 1)):
        paths = [one_weight(tmp_path / f"{n}.onnx", np.zeros(MAPPED_BYTES, dtype), "x" * n) for n in range(1, 5)]
        assert sum(read(path) is not None for path in paths) == 4 // of


def test_types_that_no_kernel_reads_are_not_mapped(tmp_path: Path) -> None:
    assert read(one_weight(tmp_path / "m.onnx", np.zeros(MAPPED_BYTES, np.int64))) is None


def test_a_model_that_is_mostly_something_else_is_not_mapped(tmp_path: Path) -> None:
    weight = np.zeros(MAPPED_BYTES, np.uint8)
    assert read(one_weight(tmp_path / "m.onnx", weight, "x" * 10_000)) is not None
    assert read(one_weight(tmp_path / "m.onnx", weight, "x" * 70_000)) is None


def test_a_model_with_data_files_is_left_to_onnxruntime(model: Path) -> None:
    proto = onnx.load(model)
    onnx.save(proto, model, save_as_external_data=True, location="data", size_threshold=MAPPED_BYTES * 8)
    assert read(model) is None
    assert output(runtime.create_session(model)).shape == (2, 6, FEATURES)


def test_weights_of_subgraphs_stay(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones(MAPPED_BYTES, np.uint8), "w")
    big = numpy_helper.from_array(np.ones(2 * MAPPED_BYTES, np.uint8), "w0")
    branches = {}
    for name in ("then_branch", "else_branch"):
        y = helper.make_tensor_value_info("y", TensorProto.UINT8, None)
        node = helper.make_node("Concat", ["w", "w0"], ["y"], axis=0)
        branches[name] = helper.make_graph([node], name, [], [y], [weight] if name == "then_branch" else [])
    branches["else_branch"].node[0].input[0] = "w0"
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    z = helper.make_tensor_value_info("z", TensorProto.UINT8, None)
    graph = helper.make_graph([helper.make_node("If", ["c"], ["z"], **branches)], "g", [c], [z], [big])
    path = tmp_path / "m.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    found = read(path)
    assert found is not None
    skeleton = onnx.ModelProto.FromString(found.content)
    assert skeleton.graph.node == made.graph.node
    assert skeleton.graph.initializer[0].data_location == TensorProto.EXTERNAL
    session = runtime.create_session(path)
    assert [session.run(None, {"c": np.array(value)})[0].size for value in (True, False)] == [
        3 * MAPPED_BYTES,
        4 * MAPPED_BYTES,
    ]


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a", b"\x3a\x02\x2a\x00", b"\x3a\x03\x2a\x01\x10"])
def test_what_is_no_model_is_left_to_onnxruntime(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    found = read(path)
    assert found is None or found.content == content
