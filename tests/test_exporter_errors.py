"""What the exporter refuses, and the one line that it then says."""

import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mxcompile import exporter
from mxcompile.errors import ExportError, MxCompileError


def failure(source: str | Path, **options: str) -> str:
    """Returns the message of the error that opening the source raises: one line that starts with the source."""
    with pytest.raises(MxCompileError) as caught, exporter.open_model(str(source), **options):
        pass
    message = str(caught.value)
    assert message.startswith(f"{source}")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("source", ["./absent", "/absent/model", "a/b/c", "~/absent", "absent/", "dir/model.onnx"])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(source):
    assert "no such file or folder" in failure(source)


def test_a_hub_id_without_a_network_is_refused(monkeypatch):
    def unreachable(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    message = failure("mxcompile-tests/absent")
    assert "the hub cannot be reached" in message
    assert "give a local Hugging Face folder" in message


def test_an_id_that_the_hub_does_not_know_is_refused(monkeypatch):
    import huggingface_hub

    def unknown(*_arguments: object, **_options: object) -> None:
        error = huggingface_hub.errors.RepositoryNotFoundError
        raise error.__new__(error)  # Its own constructor wants the whole HTTP response

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unknown)
    assert "the hub has no such model" in failure("mxcompile-tests/absent")


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_model_is_downloaded_without_what_is_not_needed(monkeypatch, tiny_model_folder, weights):
    import huggingface_hub

    asked: dict[str, object] = {}
    files = [SimpleNamespace(rfilename=name) for name in ("config.json", weights, "onnx/model.onnx")]

    def download(_source: str, **options: object) -> str:
        asked.update(options)
        return str(tiny_model_folder("bert"))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    phases: list[str] = []
    with exporter.open_model("bert-tiny", progress=phases.append) as exported:
        assert exported.source == "bert-tiny"
        assert exported.task == "fill-mask"
    assert phases == ["downloading", "exporting", "reading"]
    assert ("*.bin" in asked["allow_patterns"]) == (weights == "pytorch_model.bin")
    assert asked["local_files_only"] is False


def test_a_failed_download_is_one_line(monkeypatch):
    import huggingface_hub

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError("No space left on device\nin the cache")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=[]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    assert "the download failed: No space left on device; try again" in failure("bert-tiny")


def test_a_folder_without_weights_or_config_is_refused(tmp_path, tiny_model_folder):
    assert "no config.json" in failure(tmp_path)
    shutil.copy(tiny_model_folder("bert") / "config.json", tmp_path)
    assert "no weights in this folder" in failure(tmp_path)
    shutil.copy(tiny_model_folder("bert") / "model.safetensors", tmp_path)
    (tmp_path / "config.json").unlink()
    assert "no config.json" in failure(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "a JSON object is expected, not list"),
        ("{}", "names no model_type"),
        (
            '{"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}',
            "no exporter for model_type llava",
        ),
        ('{"model_type": "llama"}', "set the task, one of: .*text-generation-with-past"),
        ('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}', "export of this llama .* failed"),
    ],
    ids=["truncated", "list", "empty", "llava", "no-architecture", "broken-weights"],
)
def test_a_folder_that_cannot_be_exported_says_why(tmp_path, config, message):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(MxCompileError, match=message), exporter.open_model(str(tmp_path)):
        pass


def test_an_unknown_architecture_names_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "model.safetensors").touch()
    message = failure(tmp_path)
    assert all(name in message for name in ("bert", "llama", "t5", "vit"))


def test_an_unsuitable_task_names_the_suitable_ones(tiny_model_folder):
    message = failure(tiny_model_folder("bert"), task="text-to-audio")
    assert "task text-to-audio is not possible for a bert" in message
    assert "fill-mask" in message


def test_a_missing_export_extra_says_how_to_install_it(tiny_model_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ExportError, match=r"needs torch, .*pip install 'mxcompile\[export\]'"):
        exporter.open_model(str(tiny_model_folder("bert"))).__enter__()
