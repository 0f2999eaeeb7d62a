"""Runs a model with any of its products quantized, and says how far that is from the float model."""

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mxcompile import exporter, generation, onnx_file, runtime
from mxcompile.config import CompileConfig
from mxcompile.errors import ConfigError
from mxcompile.evaluation import metrics
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.fidelity import predictions
from mxcompile.evaluation.metrics import Pair, WindowFigures
from mxcompile.evaluation.models import MASK, Array, EvalModel, describe
from mxcompile.evaluation.plain import single_model
from mxcompile.evaluation.switches import MEASURE, POWERS, SWITCHES, Switch, switchable
from mxcompile.report import LayerReport, describe_layers

Tell = Callable[[str, int, int], None]
"""A phase, and how much of how many steps is done; 0 of 0 where that is unknown."""

Choice = npt.NDArray[np.bool_]
"""Which products are quantized, bool ``[products]``."""


@dataclasses.dataclass(frozen=True)
class Change:
    """How far the model with some products quantized is from the float model; None where it has no such figure.

    Attributes:
        perplexity: Exponential of the mean negative log-likelihood of the next token, of both.
        perplexity_increase: Share by which it grows.
        kl: Mean divergence from the float model's distributions, nats.
        top1_agreement: Share of predictions with the float model's likeliest token or class.
        sqnr_db: Power of the float model's output over that of the difference; infinite if there is none.
    """

    perplexity: Pair | None
    perplexity_increase: float | None
    kl: float | None
    top1_agreement: float | None
    sqnr_db: float


@dataclasses.dataclass(frozen=True)
class SwitchedModel(EvalModel):
    """A model whose products can be switched.

    Attributes:
        switches: The products.
        skipped: Products that cannot, with reasons.
    """

    switches: tuple[Switch, ...] = ()
    skipped: tuple[LayerReport, ...] = ()

    @property
    def inputs(self) -> dict[str, Any]:
        """Its inputs, without the switches."""
        return {name: value for name, value in super().inputs.items() if name not in (SWITCHES, MEASURE)}

    def feeds(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """What the session is given, see `EvalModel`; without switches in the sample everything is in float."""
        none = {SWITCHES: np.zeros(len(self.switches), np.bool_), MEASURE: np.array(False)}
        return super().feeds(sample) | {name: sample.get(name, value) for name, value in none.items()}

    def powers(self, sample: Mapping[str, Array]) -> npt.NDArray[np.float64]:
        """Power of each product's float result and of its error, see `POWERS`: float64 ``[products, 2]``."""
        feeds = self.feeds({**sample, MEASURE: np.array(True)})
        values = {name: runtime.to_value(array) for name, array in feeds.items()}
        found: npt.NDArray[np.float64] = runtime.run(self.session, [POWERS], values)[POWERS].numpy()
        return found


@contextlib.contextmanager
def open_switched(
    source: str,
    config: CompileConfig,
    *,
    task: str | None = None,
    threads: int | None = None,
    library: bool = True,
    progress: Tell | None = None,
) -> Iterator[SwitchedModel]:
    """Opens a model with a switch in every product.

    Args:
        source: A hub id, a Hugging Face folder, or an .onnx file.
        config: What to quantize, and how.
        task: Export task; None for that of the model's class.
        threads: See `runtime.create_session`.
        library: See `runtime.create_session`.
        progress: Called with the name of each phase.

    Raises:
        MxCompileError: See `exporter.open_model`, `switchable` and `runtime.create_session`.
        UnsupportedModelError: An encoder-decoder, or a model without logits and embeddings.
    """
    tell = progress or (lambda phase, done, total: None)
    with (
        tempfile.TemporaryDirectory(prefix="mxcompile-") as folder,
        exporter.open_model(source, task=task, progress=lambda phase: tell(phase, 0, 0)) as exported,
    ):
        name, model = single_model(source, exported)
        tell("quantizing weights", 0, 0)
        switches = switchable(model, config)
        skipped = tuple(layer for layer in describe_layers(name, model) if layer.skipped is not None)
        file = Path(folder, "switched.onnx")
        onnx_file.write_model(model, file)
        tokenizer = generation.read_tokenizer(Path(source), exported.tokenizer, None) if exported.tokenizer else None
        session = runtime.create_session(file, threads=threads, library=library)
        described = describe(source, session, exported.task, tokenizer, exported.generation)
        yield SwitchedModel(**vars(described), switches=switches, skipped=skipped)


def measure(
    model: SwitchedModel, samples: Samples, choices: Sequence[Choice], progress: Callable[[int, int], None]
) -> list[Change]:
    """Runs the model with each choice of quantized products, and compares it with the float model.

    One window of logits of the float model and one of another are in memory at a time.

    Args:
        model: The model.
        samples: What to run it on.
        choices: The choices.
        progress: Called with the number of runs done and of all.

    Raises:
        MxCompileError: An operator fails, or a value is not finite.
    """
    runs = len(samples) * (len(choices) + 1)
    progress(0, runs)
    found: list[list[_Sums]] = [[] for _ in choices]
    for index in range(len(samples)):
        sample = samples[index]
        reference = model.run(sample)
        rows, targets = _compared(model, sample)
        for number, (choice, sums) in enumerate(zip(choices, found, strict=True), start=1):
            output = model.run({**sample, SWITCHES: choice})
            figures = metrics.compare(reference[rows], output[rows], targets=targets, logits=model.kind != "encoder")
            sums.append(_Sums.of(figures))
            progress(index * (len(choices) + 1) + number + 1, runs)
    return [_change(sums) for sums in found]


def _compared(model: EvalModel, sample: Mapping[str, Array]) -> tuple[Any, npt.NDArray[np.int64] | None]:
    """The rows of the output that count, and the tokens that they predict."""
    if model.kind == "decoder":
        rows, targets = predictions(dict(sample))
    else:
        rows, targets = slice(None), None
        if model.kind == "token classifier" and MASK in sample:
            rows = np.flatnonzero(sample[MASK][0])
    if not (isinstance(rows, slice) or len(rows)):
        raise ConfigError("a sample has nothing to predict: its attention_mask leaves out too much")
    return rows, targets


@dataclasses.dataclass(frozen=True)
class _Sums:
    """What one window adds; the divergence of each prediction is not kept."""

    rows: int
    signal: float
    noise: float
    kl: float | None
    agreeing: int | None
    losses: tuple[float, float] | None

    @classmethod
    def of(cls, figures: WindowFigures) -> "_Sums":
        kl = math.fsum(figures.kl) if figures.kl else None
        return cls(figures.rows, figures.signal, figures.noise, kl, figures.agreeing, figures.loss)


def _change(windows: Sequence[_Sums]) -> Change:
    """The figures of all windows."""
    rows = sum(window.rows for window in windows)
    losses = [window.losses for window in windows if window.losses is not None]
    divergences = [window.kl for window in windows if window.kl is not None]
    agreeing = [window.agreeing for window in windows if window.agreeing is not None]
    perplexity = None
    if losses:
        perplexity = Pair(*(metrics.perplexity([pair[index] for pair in losses], rows) for index in (0, 1)))
    return Change(
        perplexity=perplexity,
        perplexity_increase=None if perplexity is None else perplexity.quantized / perplexity.reference - 1,
        kl=math.fsum(divergences) / rows if divergences else None,
        top1_agreement=sum(agreeing) / rows if agreeing else None,
        sqnr_db=metrics.sqnr(*(math.fsum(getattr(window, name) for window in windows) for name in ("signal", "noise"))),
    )
