"""From a Hugging Face model or an .onnx file to ``onnx_ir`` models with weights on disk.

The only file that imports torch, transformers and optimum, and only when there is something to export: an .onnx
source needs none of them.
"""

import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mxcompile import onnx_file
from mxcompile.errors import ExportError, UnsupportedModelError

IR_VERSION = 10
"""The ONNX IR version of every model inside this compiler (the newest that onnxruntime 1.20 reads)."""

MODEL_FILES = ("model.onnx", "encoder_model.onnx", "decoder_model_merged.onnx")
"""The models that make up an exported folder; others in it repeat what these hold."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_SECONDS = 10.0  # Until an unreachable hub is given up.
_CONFIG_FILES = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    "chat_template.jinja",
)
_GENERATION_KEYS = (
    *("bos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("max_position_embeddings", "n_positions"),
)
_NOISY_LOGGERS = ("transformers", "optimum", "torch", "huggingface_hub", "accelerate", "onnxscript", "onnx_ir")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model ready for the passes. Its weights are on disk until the context of ``open_model`` ends.

    Attributes:
        source: What the user gave: a hub id, a folder, or an .onnx file.
        task: The task it was exported for, such as "text-generation-with-past"; None for an .onnx source.
        models: The models by file name, at ai.onnx opset TARGET_OPSET and IR_VERSION: "model.onnx", or
            "encoder_model.onnx" and "decoder_model_merged.onnx"; for an .onnx source its own name.
        files: Configurations and tokenizer files that belong in an output folder.
        tokenizer: The text of tokenizer.json; None where there is none.
        generation: What generating text needs: "eos_token_id" (a list), "bos_token_id", "pad_token_id",
            "decoder_start_token_id", and "max_position_embeddings" or "n_positions"; those that the model names.
    """

    source: str
    task: str | None
    models: dict[str, ir.Model]
    files: tuple[Path, ...]
    tokenizer: str | None
    generation: dict[str, Any]


@contextlib.contextmanager
def open_model(
    source: str, *, task: str | None = None, progress: Callable[[str], None] | None = None
) -> Iterator[Exported]:
    """Opens a model: a hub id, a Hugging Face folder, a folder of .onnx files, or an .onnx file.

    A Hugging Face model is exported in float32 to a temporary folder, which lives until the context ends.

    Args:
        source: An existing path; or else a hub id, looked up on the hub or, without a network, in its cache.
        task: What to export for, taken literally ("text-generation" has no KV cache, "text-generation-with-past"
            has); None takes the task of the model's class, with a KV cache where it can have one.
        progress: Called with the name of each phase: "downloading", "exporting", "reading".

    Raises:
        ExportError: Nothing there, an incomplete model, an unsuitable task, or a failed export.
        UnsupportedModelError: An architecture without an exporter, or a model that cannot be converted.
    """
    report = progress or (lambda phase: None)
    path = Path(source).expanduser()
    with tempfile.TemporaryDirectory(prefix="mxcompile-") as temporary:
        if path.is_file():
            models, extras = [path], [path.parent / name for name in _CONFIG_FILES]
        else:
            folder = path if path.is_dir() else _download(source, report)
            extras = [folder / name for name in _CONFIG_FILES]
            if _has_weights(folder):
                report("exporting")
                folder, task = Path(temporary), _export(source, folder, Path(temporary), task)
                extras = sorted(file for file in folder.iterdir() if ".onnx" not in file.name)
            models = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
            if not models:
                raise ExportError(_nothing_in(source, folder))
        report("reading")
        files = tuple(file for file in extras if file.is_file())
        yield Exported(
            source=source,
            task=task,
            models={file.name: _read(file) for file in models},
            files=files,
            tokenizer=next((file.read_text("utf-8") for file in files if file.name == "tokenizer.json"), None),
            generation=_generation(files),
        )


def _read(path: Path) -> ir.Model:
    """Reads a model and brings it to TARGET_OPSET and IR_VERSION; no weight is loaded for it."""
    from onnxscript import version_converter

    model = onnx_file.read_model(path)
    opset = model.opset_imports.get("", 0)
    if opset < onnx_file.TARGET_OPSET and any(node.op_type == "GroupNormalization" for node in model.graph):
        # Its scale and bias changed from one a group to one a channel; the converter skips what it cannot adapt.
        raise UnsupportedModelError(
            f"{path}: GroupNormalization of opset {opset} cannot be converted; export again at opset 21"
        )
    with _quiet():
        # Opsets below 18 go through the converter of the onnx package, with the weights left out.
        model = version_converter.ConvertVersionPass(onnx_file.TARGET_OPSET, fallback=True)(model).model
    if model.opset_imports.get("") != onnx_file.TARGET_OPSET:
        raise UnsupportedModelError(
            f"{path}: cannot be converted from opset {opset} to {onnx_file.TARGET_OPSET}; export again at opset 18"
        )
    model.ir_version = IR_VERSION
    return model


def _download(source: str, report: Callable[[str], None]) -> Path:
    """Fetches a hub model's top-level configuration and weights; returns the folder in the hub's cache."""
    if source.endswith(".onnx") or source.startswith(".") or not _HUB_ID.fullmatch(source):
        raise ExportError(f"{source}: no such file or folder; give an .onnx file, a Hugging Face folder, or a hub id")
    report("downloading")
    hub = _require("huggingface_hub")
    errors = _require("huggingface_hub.errors")
    _require("transformers.utils.logging")
    wanted, offline = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"], None
    with _quiet(), _without_bars():
        try:
            info = hub.HfApi().model_info(source, timeout=_HUB_SECONDS)
            if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or ()):
                wanted.append("*.bin")
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise ExportError(
                f"{source}: no such folder, and the hub has no such model, or not for you (private or gated); "
                "check the id, or give a local Hugging Face folder"
            ) from error
        except OSError as error:  # No network, offline mode, or a hub in trouble: the cache may have the model
            offline = error
        try:
            folder = hub.snapshot_download(
                source, allow_patterns=wanted, ignore_patterns=["*/*"], local_files_only=offline is not None
            )
        except errors.LocalEntryNotFoundError as error:
            raise ExportError(
                f"{source}: no such folder, not in the hub cache, and the hub cannot be reached "
                f"({type(offline or error).__name__}); give a local Hugging Face folder, or connect"
            ) from error
        except OSError as error:
            raise ExportError(f"{source}: the download failed: {_first_line(error)}; try again") from error
    return Path(folder)


def _export(source: str, folder: Path, output: Path, task: str | None) -> str:
    """Exports a local Hugging Face folder; returns the task. All that torch held is free again afterwards."""
    config = _load_json(folder / "config.json")
    model_type = config.get("model_type")
    if model_type is None:
        raise ExportError(f"{source}: config.json names no model_type; give the folder of a transformers model")
    _require("torch")
    main_export = _require("optimum.exporters.onnx.__main__").main_export
    with _quiet(), _without_bars():
        chosen = _choose_task(source, model_type, config.get("architectures") or [], task)
        logger.debug("exporting %s, a %s, for %s", source, model_type, chosen)
        try:
            with _scores_capped(folder):
                main_export(
                    str(folder),
                    output,
                    task=chosen,
                    device="cpu",
                    dtype="fp32",
                    framework="pt",
                    library_name="transformers",
                    local_files_only=True,
                    do_validation=False,
                )
        except Exception as error:  # Three libraries are at work below; each failure is about this model
            raise ExportError(
                f"{source}: the export of this {model_type} for {chosen} failed: {type(error).__name__}: "
                f"{_first_line(error)}; check the folder's files, or try another task"
            ) from error
        finally:
            gc.collect()
    return chosen


@contextlib.contextmanager
def _scores_capped(folder: Path) -> Iterator[None]:
    """Has a model that caps its attention scores, such as Gemma 2, loaded with the attention that does so.

    The one that transformers takes by default, torch's fused one, ignores ``attn_logit_softcapping``; optimum gives
    no way to ask for another.
    """
    config = _require("transformers").AutoConfig.from_pretrained(str(folder), local_files_only=True)
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    if all(getattr(part, "attn_logit_softcapping", None) is None for part in parts):
        yield
        return
    manager = _require("optimum.exporters.tasks").TasksManager
    load = manager.get_model_from_task
    manager.get_model_from_task = staticmethod(functools.partial(load, attn_implementation="eager"))
    try:
        yield
    finally:
        manager.get_model_from_task = staticmethod(load)


def _choose_task(source: str, model_type: str, architectures: list[str], task: str | None) -> str:
    """Returns the task to export for, one that the exporter supports for this type of model."""
    manager = _require("optimum.exporters.tasks").TasksManager
    supported: list[str]
    try:
        supported = [*manager.get_supported_tasks_for_model_type(model_type, "onnx", library_name="transformers")]
    except KeyError as error:
        known = manager._LIBRARY_TO_SUPPORTED_MODEL_TYPES["transformers"]
        names = ", ".join(sorted(name for name, backends in known.items() if "onnx" in backends))
        raise UnsupportedModelError(
            f"{source}: no exporter for model_type {model_type}; there is one for: {names}"
        ) from error
    if task is None:
        # One class may stand for several tasks: Bart's for fill-mask and for text2text-generation.
        mappings = manager._TRANSFORMERS_TASKS_TO_MODEL_MAPPINGS
        tasks = [name for name, classes in mappings.items() if {*architectures} & {*classes.values()}]
        fitting = [*(f"{name}-with-past" for name in tasks), *tasks]
        wanted: str | None = next((name for name in fitting if name in supported), None)
        if wanted is None:
            raise ExportError(
                f"{source}: no task follows from architectures {architectures} of config.json; "
                f"set the task, one of: {', '.join(supported)}"
            )
        return wanted
    synonym = str(manager.map_from_synonym(task))
    if synonym not in supported:
        raise ExportError(
            f"{source}: task {task} is not possible for a {model_type}; set one of: {', '.join(supported)}"
        )
    return synonym


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin"))


def _nothing_in(source: str, folder: Path) -> str:
    if not (folder / "config.json").is_file():
        return f"{source}: no config.json in this folder; give a Hugging Face folder, or an .onnx file"
    return (
        f"{source}: no weights in this folder: *.safetensors or pytorch_model*.bin (or model.onnx) must be there; "
        "download the whole model"
    )


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ExportError(f"{path.parent}: no config.json in this folder; download the whole model") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: not readable JSON: {_first_line(error)}; download it again") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path}: a JSON object is expected, not {type(content).__name__}; download it again")
    return content


def _generation(files: tuple[Path, ...]) -> dict[str, Any]:
    """Returns the special tokens and limits; generation_config.json wins over config.json."""
    found: dict[str, Any] = {}
    for name in ("generation_config.json", "config.json"):
        for file in files:
            if file.name == name:
                found = {**_load_json(file), **{k: v for k, v in found.items() if v is not None}}
    result = {key: found[key] for key in _GENERATION_KEYS if found.get(key) is not None}
    if (end := found.get("eos_token_id")) is not None:
        result["eos_token_id"] = end if isinstance(end, list) else [end]
    return result


def _require(module: str) -> Any:
    """Imports a module that the export extra brings, or says how to get it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(
            f"exporting needs {error.name or module}, which cannot be imported: "
            "pip install 'mxcompile[export]'; an .onnx file needs no export"
        ) from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _Forward(logging.Handler):
    """Passes other libraries' records on to this module's logger, at level DEBUG."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.debug("%s: %s", record.name, record.getMessage())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the warnings of the libraries below to themselves and sends their logs to this module's logger.

    They must be imported by now: on import they set up loggers of their own.
    """
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    before = [(log.handlers, log.propagate) for log in loggers]
    try:
        for log in loggers:
            log.handlers, log.propagate = [_Forward(logging.INFO)], False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, (handlers, propagate) in zip(loggers, before, strict=True):
            log.handlers, log.propagate = handlers, propagate


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Turns the progress bars of transformers and huggingface_hub off; both must be imported by now."""
    settings = sys.modules["transformers.utils.logging"]
    shown = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            settings.enable_progress_bar()
