"""Text from decoders and vectors from encoders: onnxruntime and tokenizers alone, no torch, no transformers."""

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer  # type: ignore[import-untyped]

from mxcompile import runtime
from mxcompile.decoding import Sampling, StreamDecoder
from mxcompile.errors import ConfigError, ExportError, MxCompileError, UnsupportedModelError
from mxcompile.kv_cache import DTYPES, PAST, empty_cache, present_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Float32 = npt.NDArray[np.float32]

EMBEDDINGS: Final = ("sentence_embedding", "last_hidden_state", "pooler_output", "pooled")
"""Outputs that an embedding is made of; the first that a model has counts."""

POSITIONS: Final = ("max_position_embeddings", "n_positions")
"""What configurations call the longest sequence."""

_ENCODER_DECODER = ("encoder_hidden_states", "encoder_attention_mask", "decoder_input_ids")
_DTYPES: Final[dict[str, type[np.generic]]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    **DTYPES,
}


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generated text.

    Attributes:
        prompt: What it continues.
        text: The continuation.
        tokens: Its tokens; the end token is not among them.
        prompt_tokens: Number of tokens of the prompt.
        finish: ``end`` (the model gave an end token) or ``length``.
        prefill_seconds: Until the first token was known.
        tokens_per_second: Of the tokens after the first; None if there are none.
        cache_bytes: Size of the key-value cache after the last step.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: str
    prefill_seconds: float
    tokens_per_second: float | None
    cache_bytes: int


@dataclasses.dataclass(frozen=True)
class TextModel:
    """A session with the tokenizer that belongs to it.

    Attributes:
        name: What errors call it.
        session: The session.
        tokenizer: The tokenizer.
        is_decoder: Whether it generates text with a key-value cache; otherwise it gives embeddings.
        end_tokens: Tokens that end a text.
        max_positions: The longest sequence that the model takes; None if it does not say.
    """

    name: str
    session: "InferenceSession"
    tokenizer: Tokenizer
    is_decoder: bool
    end_tokens: frozenset[int] = frozenset()
    max_positions: int | None = None

    def encode(self, prompt: str) -> Encoding:
        """The tokens of a prompt.

        Raises:
            ConfigError: It has none, or more than the model takes, or it is no text.
        """
        if any("\ud800" <= char <= "\udfff" for char in prompt):
            raise ConfigError(f"the prompt {prompt!r} is no valid UTF-8; give text")
        encoding = self.tokenizer.encode(prompt)
        if not prompt or not encoding.ids:
            raise ConfigError(f"the prompt {prompt!r} has no tokens; give some text")
        if self.max_positions is not None and len(encoding.ids) > self.max_positions:
            raise ConfigError(
                f"the prompt has {len(encoding.ids)} tokens, {self.name} takes at most {self.max_positions}; shorten it"
            )
        return encoding


def load_text_model(
    model: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    library: bool = True,
) -> TextModel:
    """Opens a compiled model together with its tokenizer.

    Args:
        model: An .onnx file, or a folder with model.onnx.
        tokenizer: A tokenizer.json; None takes the one inside the model, else the one beside it.
        threads: See `runtime.create_session`.
        library: See `runtime.create_session`.

    Raises:
        UnsupportedModelError: It neither generates text nor gives embeddings.
        MxCompileError: It cannot be opened, or there is no tokenizer.
    """
    path = Path(model)
    if path.is_dir():
        path = model_in(path)
    session = runtime.create_session(path, threads=threads, library=library)
    is_decoder = _is_decoder(session, path)
    metadata = session.get_modelmeta().custom_metadata_map
    settings = read_settings(metadata.get("mxcompile.generation", "{}"), path)
    ends = settings.get("eos_token_id", [])
    positions = next((settings[key] for key in POSITIONS if key in settings), None)
    found = read_tokenizer(path, metadata.get("mxcompile.tokenizer"), tokenizer)
    found.no_padding()
    found.no_truncation()  # A prompt that is too long is an error, not silently another prompt.
    ends = frozenset(ends if isinstance(ends, list) else [ends])
    return TextModel(str(path), session, found, is_decoder, ends, positions)


def _is_decoder(session: "InferenceSession", where: Path) -> bool:
    """Whether a model generates text with a key-value cache; otherwise it gives embeddings.

    Raises:
        UnsupportedModelError: It does neither.
    """
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    if (name := first_of(inputs, _ENCODER_DECODER)) is not None:
        raise UnsupportedModelError(
            f"{where}: is the decoder of an encoder-decoder model (input {name}), which this command cannot run; "
            "use optimum's ORTModelForSeq2SeqLM on the folder"
        )
    if "input_ids" in inputs:
        if "logits" in outputs and any(name.startswith(PAST) for name in inputs):
            return True
        if first_of(outputs, EMBEDDINGS) is not None:
            return False
    raise UnsupportedModelError(
        f"{where}: neither a decoder with a key-value cache (input_ids, {PAST}* -> logits) nor a text encoder "
        f"(input_ids -> {' or '.join(EMBEDDINGS)}): its inputs are {', '.join(inputs)}, its outputs "
        f"{', '.join(outputs)}; compile with --task text-generation-with-past or --task feature-extraction"
    )


def model_in(folder: Path) -> Path:
    """The model of a folder.

    Raises:
        ExportError: There is no model.onnx.
    """
    path = folder / "model.onnx"
    if not path.is_file():
        others = ", ".join(sorted(file.name for file in folder.glob("*.onnx")))
        raise ExportError(f"{folder}: has no model.onnx; give an .onnx file" + (f": {others}" if others else ""))
    return path


def read_settings(text: str, path: Path) -> dict[str, Any]:
    """What a compiled model's metadata says of generation: end tokens, longest sequence.

    Raises:
        ExportError: The text is no JSON object.
    """
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"{path}: its metadata mxcompile.generation is no JSON object: {error}; compile it again"
        ) from error


def read_tokenizer(path: Path, text: str | None, file: str | os.PathLike[str] | None) -> Tokenizer:
    """The tokenizer of a model.

    Args:
        path: The model.
        text: The tokenizer.json inside of it, if there is one.
        file: The one to take in place of it; None for that inside, else the tokenizer.json beside the model.

    Raises:
        ExportError: There is none, or it cannot be read.
    """
    where = Path(file) if file is not None else path.with_name("tokenizer.json")
    if file is None and text is not None:
        where = path
    elif where.is_file():
        text = where.read_text("utf-8", errors="replace")
    elif file is not None:
        raise ExportError(f"{where}: no such file; give the tokenizer.json of the model")
    else:
        raise ExportError(
            f"{path}: has no tokenizer inside, and there is no tokenizer.json beside it; give --tokenizer FILE"
        )
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise ExportError(f"{where}: no tokenizer that can be read: {error}; give a tokenizer.json") from error


class Cache:
    """A decoder's key-value cache, float or packed, which stays in onnxruntime from step to step."""

    def __init__(self, session: "InferenceSession", name: str) -> None:
        self._session = session
        self._inputs = {value.name: _dtype(value.type, value.name, name) for value in session.get_inputs()}
        empty = empty_cache(session.get_inputs())
        self._values = {past: runtime.to_value(array) for past, array in empty.items()}
        self._presents = {present_of(past): past for past in empty}  # Output -> the input that it becomes.
        self._length = 0
        outputs = {value.name for value in session.get_outputs()}
        if missing := sorted(set(self._presents) - outputs):
            raise UnsupportedModelError(
                f"{name}: takes {self._presents[missing[0]]}, but does not give {missing[0]}; export it with optimum"
            )
        known = {"input_ids", "attention_mask", "position_ids", *self._presents.values()}
        if unknown := [key for key in self._inputs if key not in known]:
            raise UnsupportedModelError(
                f"{name}: a decoder with the input {unknown[0]} cannot be run; known are {', '.join(sorted(known))}"
            )

    @property
    def nbytes(self) -> int:
        """Bytes that it takes now."""
        sizes = ((math.prod(value.shape()), self._inputs[name]) for name, value in self._values.items())
        return sum(size * np.dtype(dtype).itemsize for size, dtype in sizes)

    def step(self, tokens: Sequence[int]) -> Float32:
        """Takes the next tokens of the sequence; gives the logits after the last, float32 ``[vocabulary]``."""
        end = self._length + len(tokens)
        feeds: dict[str, Any] = {
            "input_ids": [tokens],
            "attention_mask": np.ones((1, end)),
            "position_ids": np.arange(self._length, end)[np.newaxis],
        }
        inputs = {
            key: runtime.to_value(np.asarray(feeds[key], dtype))
            for key, dtype in self._inputs.items()
            if key not in self._values
        }
        outputs = runtime.run(self._session, ["logits", *self._presents], inputs | self._values)
        self._values = {past: outputs[present] for present, past in self._presents.items()}
        self._length = end
        logits: Float32 = outputs["logits"].numpy()[0, -1].astype(np.float32)
        if np.isnan(logits).any():
            raise MxCompileError(f"the model's logits are NaN after {end} tokens: its weights or this format overflow")
        return logits


def generate(
    model: TextModel,
    prompt: str,
    *,
    max_new_tokens: int = 128,
    sampling: Sampling | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Generation:
    """Continues a prompt.

    Args:
        model: A decoder with a key-value cache.
        prompt: The text to continue.
        max_new_tokens: The most tokens to add.
        sampling: How to choose tokens; None for the likeliest each time.
        on_text: Called with each piece of the continuation as soon as it is known.

    Raises:
        UnsupportedModelError: Not such a decoder.
        ConfigError: An empty or too long prompt, or no tokens to add.
    """
    if max_new_tokens < 1:
        raise ConfigError(f"max-new-tokens is {max_new_tokens}: at least 1 is allowed")
    if not model.is_decoder:
        raise UnsupportedModelError(f"{model.name}: is an encoder, which generates no text; use embed")
    sampling = sampling or Sampling()
    rng = np.random.default_rng(sampling.seed)
    context = model.encode(prompt).ids
    room = max_new_tokens
    if model.max_positions is not None:  # The last token is given, but not fed.
        room = min(room, model.max_positions - len(context) + 1)
    cache, decoder = Cache(model.session, model.name), StreamDecoder(model.tokenizer, context)
    tokens: list[int] = []
    pieces: list[str] = []

    def tell(piece: str) -> None:
        pieces.append(piece)
        if piece and on_text is not None:
            on_text(piece)

    start = time.perf_counter()
    token = sampling.choose(cache.step(context), rng)
    first = time.perf_counter()
    while token not in model.end_tokens:
        tokens.append(token)
        tell(decoder.push(token))
        if len(tokens) == room:
            break
        token = sampling.choose(cache.step([token]), rng)
    seconds = time.perf_counter() - first
    tell(decoder.finish())
    ended = token in model.end_tokens
    steps = len(tokens) - (not ended)  # Each but the first token, and the end token, took a step.
    return Generation(
        prompt=prompt,
        text="".join(pieces),
        tokens=tuple(tokens),
        prompt_tokens=len(context),
        finish="end" if ended else "length",
        prefill_seconds=first - start,
        tokens_per_second=steps / seconds if steps else None,
        cache_bytes=cache.nbytes,
    )


def embed(model: TextModel, prompts: Iterable[str]) -> Float32:
    """Embeddings of prompts: float32 ``[prompts, features]``, each of length 1.

    A model that gives a vector a token is averaged over the attention mask. An all-zero vector stays as it is.

    Raises:
        UnsupportedModelError: Not a text encoder.
        ConfigError: An empty or too long prompt.
    """
    if model.is_decoder:
        raise UnsupportedModelError(f"{model.name}: is a decoder, which gives no embeddings; use generate")
    return np.stack([_embed(model, model.encode(prompt)) for prompt in prompts])


def _embed(model: TextModel, encoding: Encoding) -> Float32:
    arrays = {
        "input_ids": encoding.ids,
        "attention_mask": encoding.attention_mask,
        "token_type_ids": encoding.type_ids,
        "position_ids": range(len(encoding.ids)),
    }
    feeds = {}
    for value in model.session.get_inputs():
        if value.name not in arrays:
            raise UnsupportedModelError(
                f"{model.name}: an encoder with the input {value.name} cannot be run; known are {', '.join(arrays)}"
            )
        array = np.array([arrays[value.name]], _dtype(value.type, value.name, model.name))
        feeds[value.name] = runtime.to_value(array)
    output = first_of([value.name for value in model.session.get_outputs()], EMBEDDINGS)
    assert output is not None  # _is_decoder has seen to it
    vector = runtime.run(model.session, [output], feeds)[output].numpy()[0].astype(np.float32)
    if vector.ndim == 2:
        mask = np.array(encoding.attention_mask, np.float32)[:, np.newaxis]
        vector = (vector * mask).sum(axis=0) / mask.sum()
    norm = float(np.linalg.norm(vector))
    if np.isnan(norm):
        raise MxCompileError(f"{model.name}: the embedding is NaN: its weights or this format overflow")
    unit: Float32 = vector / np.float32(norm if norm > 0 else 1)
    return unit


def _dtype(text: str, value: str, model: str) -> type[np.generic]:
    if text not in _DTYPES:
        raise UnsupportedModelError(f"{model}: input {value} is a {text}; known are {', '.join(_DTYPES)}")
    return _DTYPES[text]


def first_of(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first of the wanted names that is there."""
    there = set(names)
    return next((name for name in wanted if name in there), None)
