"""The evaluation: both models over the data, one window at a time."""

import contextlib
import dataclasses
import importlib.metadata
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mxcompile import runtime
from mxcompile.errors import ConfigError
from mxcompile.evaluation import data, metrics
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.flips import Flips, continuations, prompt_tokens, summarize_flips
from mxcompile.evaluation.metrics import Figures, Pair, WindowFigures
from mxcompile.evaluation.models import (
    IDS,
    MASK,
    Array,
    EvalModel,
    check_pair,
    choose_tokenizer,
    open_compiled,
    open_reference,
)
from mxcompile.evaluation.report import DataReport, EvalReport
from mxcompile.evaluation.state import State, model_digest, open_state
from mxcompile.evaluation.thresholds import Thresholds, apply_thresholds, check_thresholds

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Tell = Callable[[str, int, int], None]
"""A phase, and how much of how many steps is done; 0 of 0 where that is unknown."""


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """What to measure, and on what.

    Attributes:
        data: Text files, read as one text, or one .npz file; none for the held-out text that the reference names.
        seq_len: Tokens of a window; None for 2048, or fewer if the models take fewer.
        windows: At most so many windows or samples.
        tokens: At most so many tokens.
        prompts: Prompts that both models continue greedily; 0 for none.
        new_tokens: Tokens that are added to each, at most.
        tasks: Tasks of lm-evaluation-harness, by name or as .yaml files. With tasks and without `data`, nothing else
            is measured.
        limit: At most so many documents of each task.
        thresholds: What is still good enough.
        tokenizer: A tokenizer.json; None for the one in the model, beside it, or with the reference.
        task: Export task of a Hugging Face reference; None for the one that the model was exported for.
        threads: Threads that one operator may use; None for all cores.
        library: Whether to use the custom-op library.
        resume: A file that keeps finished windows; an evaluation that was stopped goes on from it.

    Raises:
        ConfigError: A value out of range.
    """

    data: tuple[str, ...] = ()
    seq_len: int | None = None
    windows: int | None = None
    tokens: int | None = None
    prompts: int = 32
    new_tokens: int = 64
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    tokenizer: str | None = None
    task: str | None = None
    threads: int | None = None
    library: bool = True
    resume: str | None = None

    def __post_init__(self) -> None:
        least = {"seq_len": 2, "windows": 1, "tokens": 1, "prompts": 0, "new_tokens": 1, "limit": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}: at least {bound} is allowed")
        if self.thresholds.given and not self.measures:
            raise ConfigError(
                "thresholds are on text or arrays, but with --tasks these are measured only if --data names them; "
                "give --data FILE, or leave the thresholds out"
            )

    @property
    def measures(self) -> bool:
        """Whether anything but tasks is measured."""
        return bool(self.data) or not self.tasks


def evaluate(
    model: str,
    reference: str,
    options: EvalOptions | None = None,
    *,
    progress: Tell | None = None,
    keep: Callable[[Samples], None] | None = None,
) -> EvalReport:
    """Compares a compiled model with its reference.

    Args:
        model: An .onnx file, or a folder of one.
        reference: The original: a hub id, a Hugging Face folder, or an .onnx file.
        options: What to measure.
        progress: Called with the phase and its steps.
        keep: Called with the data that was read, before anything runs on it.

    Raises:
        MxCompileError: A model that cannot be opened or run, data that does not fit, or settings that cannot be.
    """
    options, tell, start = options or EvalOptions(), progress or (lambda phase, done, total: None), time.perf_counter()
    with _opened(model, reference, options, tell) as (quantized, original):
        flips = quantized.kind == "decoder" and quantized.has_cache and original.has_cache and options.prompts > 0
        check_thresholds(options.thresholds, quantized, flips=flips)
        samples = read_samples(quantized, original, reference, options) if options.measures else None
        figures, flipped = None, None
        if samples is not None:
            if keep is not None:
                keep(samples)
            settings = _settings(model, reference, samples, options) if options.resume else {}
            with open_state(options.resume, settings) as state:
                figures = _windows(quantized, original, samples, state, tell)
                flipped = _flips(quantized, original, samples, options, state, tell) if flips else None
        tasks = _tasks(quantized, original, options, tell) if options.tasks else {}
    described = None
    if samples is not None:
        described = DataReport(samples.files, samples.missing, samples.digest, len(samples), samples.seq_len)
    return EvalReport(
        version=importlib.metadata.version("mxcompile"),
        model=model,
        reference=reference,
        kind=quantized.kind,
        data=described,
        figures=figures,
        flips=flipped,
        tasks=tasks,
        gates=apply_thresholds(options.thresholds, figures, flipped) if figures is not None else (),
        seconds=time.perf_counter() - start,
    )


@contextlib.contextmanager
def _opened(model: str, reference: str, options: EvalOptions, tell: Tell) -> Iterator[tuple[EvalModel, EvalModel]]:
    """Both models, which can be compared."""
    session: dict[str, Any] = {"threads": options.threads, "library": options.library}
    tell("opening", 0, 0)
    quantized = open_compiled(model, **session)
    task = options.task or quantized.task
    with open_reference(reference, task=task, **session, progress=lambda phase: tell(phase, 0, 0)) as original:
        check_pair(quantized, original)
        yield quantized, original


def read_samples(quantized: EvalModel, original: EvalModel, reference: str, options: EvalOptions) -> Samples:
    """The data, which both models take."""
    files, missing = [Path(file).expanduser() for file in options.data], list[str]()
    arrays = [file for file in files if file.suffix == ".npz"]
    if arrays:
        if len(files) > 1:
            raise ConfigError(f"--data {arrays[0]}: an .npz file stands alone; {len(files)} files were given")
        limit = options.windows
        if options.tokens is not None or options.seq_len is not None:
            raise ConfigError(f"--data {arrays[0]}: its arrays are the windows; --windows limits them, not tokens")
        samples = data.read_arrays(files[0], quantized, original, limit=limit)
    else:
        if IDS not in quantized.inputs:
            raise ConfigError(
                f"{quantized.name}: takes {', '.join(quantized.inputs)}, no text; give --data FILE.npz with them"
            )
        if not files:
            files, missing = data.default_files(reference)
        tokenizer = choose_tokenizer(quantized, original, options.tokenizer)
        seq_len = data.window_length(options.seq_len, quantized, original)
        special = quantized.kind != "decoder"
        limit = data.window_limit(seq_len, options.windows, options.tokens)
        ids = data.token_windows(data.read_text(files), tokenizer, seq_len, special=special, limit=limit)
        samples = Samples({IDS: ids}, tuple(map(str, files)), tuple(missing), seq_len)
    data.check_tokens(samples, quantized, original)
    if quantized.kind == "decoder" and samples.inputs[IDS].shape[1] < 2:
        raise ConfigError(f"{samples.files[0]}: sequences of one token have no next token; give longer ones")
    return samples


def _settings(model: str, reference: str, samples: Samples, options: EvalOptions) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "version": importlib.metadata.version("mxcompile"),
        "onnxruntime": runtime.onnxruntime_version(),
        "model": model_digest(model),
        "reference": model_digest(reference),
        "data": samples.digest,
        "prompts": options.prompts,
        "new tokens": options.new_tokens,
        "library": options.library,
    }


def _windows(quantized: EvalModel, original: EvalModel, samples: Samples, state: State, tell: Tell) -> Figures:
    """The figures of all windows, those that are done already included."""
    tell("windows", len(state.windows), len(samples))
    for index in range(len(samples)):
        if index not in state.windows:
            state.windows[index] = _window(quantized, original, samples[index])
            state.save("window", index, state.windows[index])
            tell("windows", index + 1, len(samples))
    return metrics.summarize([state.windows[index] for index in range(len(samples))])


def _window(quantized: EvalModel, original: EvalModel, sample: dict[str, Array]) -> WindowFigures:
    """The figures of one window."""
    outputs = [original.run(sample), quantized.run(sample)]
    if outputs[0].shape != outputs[1].shape:
        shapes = [list(output.shape) for output in outputs]
        raise ConfigError(
            f"{original.name} gives {original.output} {shapes[0]}, {quantized.name} {shapes[1]}; give the reference "
            "that was compiled"
        )
    targets = None
    if quantized.kind == "decoder":
        rows, targets = predictions(sample)
        outputs = [output[rows] for output in outputs]
    elif quantized.kind == "token classifier" and MASK in sample:
        outputs = [output[sample[MASK][0].astype(bool)] for output in outputs]
    if not len(outputs[0]):
        raise ConfigError("a sample has nothing to predict: its attention_mask leaves out too much")
    return metrics.compare(*outputs, targets=targets, logits=quantized.kind != "encoder")


def predictions(sample: dict[str, Array]) -> tuple[Any, npt.NDArray[np.int64]]:
    """The positions that predict a token, and these tokens: all but the last position, and no padding."""
    ids = sample[IDS][0].astype(np.int64)
    if MASK not in sample or sample[MASK].all():
        return slice(0, -1), ids[1:]  # A slice is no copy of the logits.
    mask = sample[MASK][0].astype(bool)
    rows = np.flatnonzero(mask[:-1] & mask[1:])
    return rows, ids[rows + 1]


def _flips(
    quantized: EvalModel, original: EvalModel, samples: Samples, options: EvalOptions, state: State, tell: Tell
) -> Flips | None:
    """Greedy texts of both models."""
    prompts = list(prompt_tokens(samples, options.prompts, options.new_tokens))
    for index, (prompt, new_tokens) in enumerate(prompts):
        tell("greedy text", index, len(prompts))
        if index not in state.prompts:
            state.prompts[index] = continuations(quantized, original, prompt, new_tokens)
            state.save("prompt", index, state.prompts[index])
    return summarize_flips([state.prompts[index] for index in range(len(prompts))]) if prompts else None


def _tasks(quantized: EvalModel, original: EvalModel, options: EvalOptions, tell: Tell) -> dict[str, dict[str, Pair]]:
    """Results of lm-evaluation-harness, of both models."""
    from mxcompile.evaluation import harness

    tokenizer = choose_tokenizer(quantized, original, options.tokenizer)
    models = [dataclasses.replace(model, tokenizer=tokenizer) for model in (original, quantized)]
    tell("tasks", 0, 0)
    found = harness.run_tasks(models, options.tasks, limit=options.limit)
    return {
        task: {metric: Pair(value, found[1][task][metric]) for metric, value in values.items()}
        for task, values in found[0].items()
    }


def perplexity(session: "InferenceSession", windows: npt.NDArray[np.int64]) -> float:
    """Perplexity of a decoder alone.

    Args:
        session: The decoder.
        windows: int64 ``[windows, seq_len]``.
    """
    model = EvalModel("the model", session, "decoder", "logits")
    losses = [metrics.loss(model.run({IDS: window[np.newaxis]})[:-1], window[1:]) for window in windows]
    return metrics.perplexity(losses, windows[:, 1:].size)
