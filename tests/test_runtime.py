"""Finding and asking the custom-op library, and opening sessions."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from text_models import counting_decoder, save

import mxcompile
from mxcompile import ops, runtime, selftest
from mxcompile.errors import ConfigError, ExportError, MxCompileError, RuntimeLibraryError, UnsupportedModelError
from mxcompile.formats import FORMATS


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model without custom ops."""
    return save(counting_decoder(), tmp_path / "model.onnx")


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs code in another process: a library checks MXCOMPILE_ISA once a process."""
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


# The library ---------------------------------------------------------------------------------------------------------


def test_library_info_names_file_version_and_isa() -> None:
    info = runtime.library_info()
    assert info.path == runtime.custom_ops_library()
    assert info.version == importlib.metadata.version("mxcompile")
    assert info.isa
    assert runtime.library_info() is info


def test_the_library_is_an_attribute_of_the_package() -> None:
    assert mxcompile.custom_ops_library() == runtime.custom_ops_library()


def test_the_variable_names_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    other.touch()
    monkeypatch.setenv(runtime.LIBRARY_VARIABLE, str(other))
    assert runtime.custom_ops_library() == other


def test_the_variable_naming_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(runtime.LIBRARY_VARIABLE, str(tmp_path / "gone.so"))
    with pytest.raises(RuntimeLibraryError, match=r"gone.so: no such file; MXCOMPILE_LIBRARY names it: correct"):
        runtime.custom_ops_library()


def test_the_library_of_an_editable_installation_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(runtime.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(runtime, "LIBRARY_NAME", "libelsewhere.so")
    library = tmp_path / "mxcompile" / "libelsewhere.so"
    library.parent.mkdir()
    library.touch()

    class Installation(importlib.metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            return "mxcompile/__init__.py,,\nmxcompile/libelsewhere.so,,\n" if filename == "RECORD" else None

        def locate_file(self, path: str | os.PathLike[str]) -> Path:  # type: ignore[override]
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "files", lambda name: Installation().files)
    assert runtime.custom_ops_library() == library


@pytest.mark.parametrize("installed", [True, False])
def test_a_missing_library_says_what_to_do(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        if not installed:
            raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delenv(runtime.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(runtime, "LIBRARY_NAME", "libnowhere.so")
    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(RuntimeLibraryError, match=r"is missing.*pip install --force-reinstall.*library=False"):
        runtime.custom_ops_library()


def test_a_file_that_is_no_library_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    monkeypatch.setenv(runtime.LIBRARY_VARIABLE, str(text))
    with pytest.raises(RuntimeLibraryError, match=r"text.so: does not load: .*--force-reinstall"):
        runtime.create_session(model)
    assert capfd.readouterr() == ("", "")


def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    built = importlib.metadata.version("mxcompile")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.8.7")
    runtime._ask.cache_clear()
    with pytest.raises(RuntimeLibraryError, match=rf"of mxcompile {built}, but this is mxcompile 9\.8\.7: pip install"):
        runtime.create_session(model)


def test_an_unknown_isa_is_refused_with_the_known_ones() -> None:
    done = python("from mxcompile import runtime; runtime.library_info()", MXCOMPILE_ISA="abacus")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mxcompile.errors.RuntimeLibraryError: MXCOMPILE_ISA is 'abacus'; available on this machine")
    assert "scalar" in last
    assert "[ONNXRuntimeError]" not in last


def test_the_isa_can_be_chosen() -> None:
    done = python("from mxcompile import runtime; print(runtime.library_info().isa)", MXCOMPILE_ISA="scalar")
    assert done.stdout == "scalar\n"
    assert done.stderr == ""


# Sessions ------------------------------------------------------------------------------------------------------------


def quantize_model() -> bytes:
    """QuantizeBlock of x, with its body."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", 64])
    outputs = [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in ("codes", "scales")]
    node = helper.make_node(ops.QUANTIZE, ["x"], ["codes", "scales"], domain=ops.DOMAIN, format="amxfp4")
    opsets = [helper.make_opsetid("", ops.OPSET), helper.make_opsetid(ops.DOMAIN, ops.VERSION)]
    graph = helper.make_graph([node], "quantize", [x], outputs)
    functions = [onnx.FunctionProto.FromString(body(f)) for f in ops.functions(["amxfp4"])]
    made = helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=runtime.IR_VERSION)
    return made.SerializeToString()


def body(function: object) -> bytes:
    import onnx_ir as ir

    return ir.serde.serialize_function(function).SerializeToString()  # type: ignore[arg-type]


def test_custom_ops_run_with_the_library_and_without() -> None:
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    expected = FORMATS["amxfp4"].quantize(x)
    for library in (True, False):
        session = runtime.create_session(quantize_model(), threads=1, library=library)
        codes, scales = session.run(None, {"x": x})
        np.testing.assert_array_equal(codes, expected.codes)
        np.testing.assert_array_equal(scales, expected.scales)


def test_threads_are_those_asked_for(model: Path) -> None:
    session = mxcompile.create_session(model, threads=2, library=False)
    assert session.get_session_options().intra_op_num_threads == 2


def test_no_threads_are_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match="threads is 0: at least 1"):
        runtime.create_session(model, threads=0)


def test_an_unknown_provider_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"no provider Abacus: this onnxruntime has .*CPUExecutionProvider"):
        runtime.create_session(model, providers=["Abacus"])


def test_a_missing_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"gone.onnx: no such file; give the .onnx file"):
        runtime.create_session(tmp_path / "gone.onnx")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is a folder; give the .onnx file in it"):
        runtime.create_session(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a"])
def test_what_is_no_model_is_an_error(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"model.onnx: cannot be read as an ONNX model: .*; compile or copy it again"):
        runtime.create_session(path, library=False)
    with pytest.raises(ExportError, match="the model: cannot be read as an ONNX model"):
        runtime.create_session(content, library=False)
    assert capfd.readouterr() == ("", "")


def test_an_op_that_does_not_exist_is_an_error(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    proto = onnx.load(model)
    proto.graph.node[0].op_type = "Abacus"
    with pytest.raises(UnsupportedModelError, match=r"onnxruntime .* cannot load it: .*Abacus") as caught:
        runtime.create_session(save(proto, model), library=False)
    assert "[ONNXRuntimeError]" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_data_files_are_an_error(model: Path) -> None:
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    model.with_name("model.onnx.data").unlink()
    with pytest.raises(UnsupportedModelError, match=r"model.onnx.data.*keep its data files"):
        runtime.create_session(model, library=False)


def test_a_failing_run_is_one_readable_error(model: Path) -> None:
    session = runtime.create_session(model, threads=1, library=False)
    arrays = {"input_ids": np.array([[99]]), "attention_mask": np.array([[1]])}
    arrays["past_key_values.0.key"] = np.zeros((1, 1, 0, 1), np.float32)
    feeds = {name: runtime.to_value(array) for name, array in arrays.items()}
    with pytest.raises(MxCompileError, match=r"the model failed on input_ids \[1, 1\], .*out of") as caught:
        runtime.run(session, ["logits"], feeds)
    assert "[ONNXRuntimeError]" not in str(caught.value)


# The selftest --------------------------------------------------------------------------------------------------------


def test_the_selftest_passes() -> None:
    report = selftest.selftest()
    assert report.failed == []
    assert report.to_dict()["ok"] is True
    checks = {(check.name, check.detail.split(":")[0]) for check in report.checks}
    for name in FORMATS:
        for way in ("library", "function bodies"):
            for op in ("QuantizeBlock", "DequantizeBlock", "MatMulBlock"):
                assert (f"{name}, {way}", op) in checks


def failures() -> list[str]:
    return [check.detail.split(":")[0] for check in selftest._check_format("amxfp4", library=False) if not check.ok]


def test_the_selftest_notices_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = selftest._model, FORMATS["amxfp4"].quantize(selftest._data()[2] + np.float32(0.01))
    monkeypatch.setattr(selftest, "_model", lambda name, weights: model(name, other))
    assert failures() == ["MatMulBlock"]


def test_the_selftest_notices_a_wrong_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(selftest._KNOWN, "amxfp4", (b"\xf7\x02", b"\x3c\x39"))
    assert failures() == ["by hand"]


def test_the_selftest_notices_other_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest.runtime, "to_value", lambda array: runtime.ort.OrtValue.ortvalue_from_numpy(-array))
    assert failures() == ["QuantizeBlock", "by hand", "DequantizeBlock", "MatMulBlock"]


def test_the_selftest_reports_what_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_model", lambda name, weights: b"")
    (check,) = selftest._check_format("mxfp4", library=False)
    assert not check.ok
    assert "cannot be read as an ONNX model" in check.detail


def test_the_selftest_without_the_library_checks_the_bodies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(runtime.LIBRARY_VARIABLE, str(tmp_path / "gone.so"))
    report = selftest.selftest()
    assert [check.name for check in report.failed] == ["library"]
    assert (report.library, report.version, report.isa) == (None, None, None)
    assert len(report.checks) > len(FORMATS)
