"""The models that are compared: sessions, what kind of outputs they give, and the inputs that they take."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from mxcompile import generation, runtime
from mxcompile.errors import ConfigError, ExportError, MxCompileError, UnsupportedModelError
from mxcompile.generation import EMBEDDINGS, POSITIONS
from mxcompile.kv_cache import PAST, empty_cache

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]
Kind = Literal["decoder", "token classifier", "classifier", "encoder"]

IDS: Final = "input_ids"
MASK: Final = "attention_mask"
_LOGITS: Final = "logits"
_GENERATES: Final = "text-generation"  # How the export tasks of decoders begin.
_TYPES: Final[dict[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class EvalModel:
    """A session, and what is known of the model in it.

    Attributes:
        name: What messages call it.
        session: The session.
        kind: ``decoder`` (logits of the next token), ``token classifier`` (logits of every token, such as a masked
            language model's), ``classifier`` (logits of a whole input), ``encoder`` (embeddings).
        output: The output that is compared.
        tokenizer: Its own tokenizer; None where there is none.
        task: The task it was exported for, if that is known.
        begin_token: Token that begins a text; None if it does not say.
        end_tokens: Tokens that end a text.
        max_positions: The longest sequence that it takes; None if it does not say.
    """

    name: str
    session: "InferenceSession"
    kind: Kind
    output: str
    tokenizer: Tokenizer | None = None
    task: str | None = None
    begin_token: int | None = None
    end_tokens: frozenset[int] = frozenset()
    max_positions: int | None = None

    @property
    def has_cache(self) -> bool:
        """Whether it has a key-value cache, and so can generate token by token."""
        return any(value.name.startswith(PAST) for value in self.session.get_inputs())

    @property
    def vocabulary(self) -> int | None:
        """Logits of a token or an input; None if the model does not say, or gives embeddings."""
        size = next(value.shape[-1] for value in self.session.get_outputs() if value.name == self.output)
        return size if isinstance(size, int) and self.output == _LOGITS else None

    @property
    def inputs(self) -> dict[str, Any]:
        """Its inputs by name, as onnxruntime describes them, without the cache."""
        return {value.name: value for value in self.session.get_inputs() if not value.name.startswith(PAST)}

    def run(self, sample: Mapping[str, Array]) -> Array:
        """The compared output of one sample, without the batch axis.

        Args:
            sample: Arrays ``[1, ...]`` by name; names that are no input do not matter. What follows from ``input_ids``
                is added where it lacks: mask, positions, token types, and an empty cache.

        Returns:
            ``[positions, logits]``, ``[1, logits]`` of a classifier, ``[1, features]`` of an encoder: the mean over
            the tokens of the attention mask. The memory is onnxruntime's, no copy.

        Raises:
            MxCompileError: An operator fails, or a value is not finite.
        """
        feeds = {name: runtime.to_value(array) for name, array in self.feeds(sample).items()}
        output: Array = runtime.run(self.session, [self.output], feeds)[self.output].numpy()[0]
        if self.kind == "encoder" and output.ndim > 1:
            mask = sample.get(MASK)
            weights = None if mask is None or mask.shape[1:] != output.shape[:-1] else mask[0].astype(np.float64)
            output = np.average(output.astype(np.float64), axis=tuple(range(output.ndim - 1)), weights=weights)
        if not (np.isfinite(output.min()) and np.isfinite(output.max())):  # No array as large as the logits.
            raise MxCompileError(f"{self.name}: its {self.output} are not finite: weights or this format overflow")
        return output.reshape(-1, output.shape[-1])

    def feeds(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """What the session is given for one sample; see `run`.

        Raises:
            ConfigError: An input is neither in the sample nor follows from ``input_ids``.
            UnsupportedModelError: An input of a type that cannot be fed.
        """
        given = _derived(sample[IDS], sample.get(MASK)) | dict(sample) if IDS in sample else dict(sample)
        found: dict[str, Array] = {}
        for name, value in self.inputs.items():
            if name not in given:
                raise ConfigError(f"{self.name}: no data for its input {name}; there is {', '.join(sample)}")
            if value.type not in _TYPES:
                raise UnsupportedModelError(f"{self.name}: input {name} is a {value.type}; known are {[*_TYPES]}")
            found[name] = given[name].astype(_TYPES[value.type], copy=False)
        return found | empty_cache(self.session.get_inputs())


def _derived(ids: Array, mask: Array | None) -> dict[str, Array]:
    """Inputs that follow from tokens ``[1, length]`` and their mask: positions count the tokens that are no padding."""
    mask = np.ones(ids.shape, np.int64) if mask is None else mask
    positions = np.maximum(np.cumsum(mask, axis=-1) - 1, 0)
    return {MASK: mask, "position_ids": positions, "token_type_ids": np.zeros(ids.shape, np.int64)}


def can_follow(name: str, given: Mapping[str, Array]) -> bool:
    """Whether an input need not be given, because it follows from those that are."""
    return IDS in given and name in _derived(np.zeros((1, 0), np.int64), None)


def open_compiled(path: str, *, threads: int | None = None, library: bool = True) -> EvalModel:
    """Opens an .onnx file, or the model.onnx of a folder.

    Raises:
        MxCompileError: See `runtime.create_session`; or a model that gives nothing to compare.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = generation.model_in(file)
    session = runtime.create_session(file, threads=threads, library=library)
    metadata = session.get_modelmeta().custom_metadata_map
    beside = file.with_name("tokenizer.json")
    tokenizer = None
    if "mxcompile.tokenizer" in metadata or beside.is_file():
        tokenizer = generation.read_tokenizer(file, metadata.get("mxcompile.tokenizer"), None)
    settings = generation.read_settings(metadata.get("mxcompile.generation", "{}"), file)
    return describe(str(file), session, metadata.get("mxcompile.task"), tokenizer, settings)


@contextlib.contextmanager
def open_reference(
    source: str,
    *,
    task: str | None = None,
    threads: int | None = None,
    library: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Iterator[EvalModel]:
    """Opens the model to compare with; a Hugging Face model is exported in float32 for it.

    Args:
        source: An .onnx file, a folder of one, a Hugging Face folder, or a hub id.
        task: What to export for; None for the task of the model's class.
        threads: See `runtime.create_session`.
        library: See `runtime.create_session`.
        progress: Called with the name of each phase.

    Raises:
        MxCompileError: See `exporter.open_model` and `open_compiled`.
    """
    path = Path(source).expanduser()
    if path.is_file() or (path / "model.onnx").is_file():
        yield open_compiled(source, threads=threads, library=library)
        return
    from mxcompile import exporter, onnx_file

    with tempfile.TemporaryDirectory(prefix="mxcompile-") as folder:
        file = Path(folder, "model.onnx")
        with exporter.open_model(source, task=task, progress=progress) as exported:
            if file.name not in exported.models:
                raise UnsupportedModelError(
                    f"{source}: is an encoder-decoder ({', '.join(exported.models)}), which eval cannot run; "
                    "compare its parts as .onnx files with .npz data"
                )
            onnx_file.write_model(exported.models[file.name], file)
        tokenizer = generation.read_tokenizer(Path(source), exported.tokenizer, None) if exported.tokenizer else None
        session = runtime.create_session(file, threads=threads, library=library)
        yield describe(source, session, exported.task, tokenizer, exported.generation)


def describe(
    name: str, session: "InferenceSession", task: str | None, tokenizer: Tokenizer | None, settings: dict[str, Any]
) -> EvalModel:
    """Finds out what the model is.

    Raises:
        UnsupportedModelError: It has neither logits nor embeddings.
    """
    outputs = {value.name: value.shape for value in session.get_outputs()}
    inputs = [value.name for value in session.get_inputs()]
    if tokenizer is not None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
    ends = settings.get("eos_token_id", [])
    known: dict[str, Any] = {
        "tokenizer": tokenizer,
        "task": task,
        "begin_token": settings.get("bos_token_id"),
        "end_tokens": frozenset(ends if isinstance(ends, list) else [ends]),
        "max_positions": next((settings[key] for key in POSITIONS if key in settings), None),
    }
    if _LOGITS in outputs:
        rank = len(outputs[_LOGITS])
        generates = any(name.startswith(PAST) for name in inputs) or (task or "").startswith(_GENERATES)
        kinds: dict[int, Kind] = {2: "classifier", 3: "decoder" if generates else "token classifier"}
        if rank in kinds:
            return EvalModel(name, session, kinds[rank], _LOGITS, **known)
    elif (embedding := generation.first_of(outputs, EMBEDDINGS)) is not None:
        return EvalModel(name, session, "encoder", embedding, **known)
    raise UnsupportedModelError(
        f"{name}: gives neither logits (of rank 2 or 3) nor embeddings ({', '.join(EMBEDDINGS)}): its outputs are "
        f"{', '.join(f'{key} {shape}' for key, shape in outputs.items())}; compile it for a task that has them"
    )


def check_pair(model: EvalModel, reference: EvalModel) -> None:
    """Sees to it that two models can be compared.

    Raises:
        ConfigError: They are of different kinds, or have other vocabularies.
    """
    if model.kind != reference.kind or model.output != reference.output:
        raise ConfigError(
            f"{model.name} is of kind {model.kind} ({model.output}), {reference.name} of kind {reference.kind} "
            f"({reference.output}); give the reference that was compiled, or --task as then"
        )
    sizes = model.vocabulary, reference.vocabulary
    if None not in sizes and sizes[0] != sizes[1]:
        raise ConfigError(
            f"{model.name} has {sizes[0]} logits, {reference.name} has {sizes[1]}: other vocabularies; "
            "give the reference that was compiled"
        )
    if model.tokenizer is not None and reference.tokenizer is not None:
        mine, other = model.tokenizer.get_vocab(), reference.tokenizer.get_vocab()
        if mine != other:
            word = next(iter(sorted(set(mine.items()) ^ set(other.items()))))
            raise ConfigError(
                f"{model.name} and {reference.name} have tokenizers of other vocabularies (only one has {word[0]!r} "
                f"as {word[1]}); give the reference that was compiled"
            )


def choose_tokenizer(model: EvalModel, reference: EvalModel, file: str | None) -> Tokenizer:
    """The tokenizer for the text: that of the file, else the model's own, else the reference's.

    Raises:
        ExportError: There is none, or it cannot be read.
    """
    if file is not None:
        tokenizer = generation.read_tokenizer(Path(model.name), None, file)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    found = model.tokenizer or reference.tokenizer
    if found is None:
        raise ExportError(
            f"{model.name}: no tokenizer in it or beside it, nor with {reference.name}; give --tokenizer FILE, "
            "or --data FILE.npz with input_ids"
        )
    return found
