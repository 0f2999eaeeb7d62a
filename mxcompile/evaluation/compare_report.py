"""What a comparison of formats found."""

import dataclasses
from typing import Any

from mxcompile.evaluation.report import DataReport, finite


@dataclasses.dataclass(frozen=True)
class Quality:
    """How far a form of the model is from the original; None where its kind has no such figure (docs/evaluation.md).

    Attributes:
        perplexity: Exponential of the mean negative log-likelihood of the next token.
        perplexity_increase: Share by which it is above the original's.
        kl: Mean divergence from the original's distributions, nats.
        kl_p99: Divergence that 99% of the predictions stay below, nats.
        top1_agreement: Share of predictions with the original's likeliest token or class.
        cosine: Mean cosine of logits or embeddings.
        sqnr_db: Power of the original's output over that of the difference, decibels; infinite of the original.
        flip_rate: Share of greedy tokens that differ.
    """

    perplexity: float | None
    perplexity_increase: float | None
    kl: float | None
    kl_p99: float | None
    top1_agreement: float | None
    cosine: float
    sqnr_db: float
    flip_rate: float | None


@dataclasses.dataclass(frozen=True)
class Size:
    """What a form of the model takes.

    Attributes:
        bits_per_quantized_weight: Stored bits, scales included; None where no weight is quantized.
        bits_per_weight: The same over the weights of all linear layers, those left in float included; None where there
            are none.
        file_bytes: Of the written model, data files included.
        kv_bytes_per_token: Of the key-value cache behind `CompareReport.decode` tokens, over these tokens; None
            without a cache.
    """

    bits_per_quantized_weight: float | None
    bits_per_weight: float | None
    file_bytes: int
    kv_bytes_per_token: float | None


@dataclasses.dataclass(frozen=True)
class EngineCost:
    """What a form of the model costs on an engine (docs/cost-model.md); None where there is no estimate.

    Attributes:
        prefill_energy_pj_per_token: Of the prefill, over its tokens.
        prefill_latency_us: Its time, at least.
        decode_energy_pj_per_token: Of a step of decoding.
        decode_latency_us: Its time, at least.
        area_um2: Of arrays and quantizers.
    """

    prefill_energy_pj_per_token: float | None = None
    prefill_latency_us: float | None = None
    decode_energy_pj_per_token: float | None = None
    decode_latency_us: float | None = None
    area_um2: float | None = None


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast a form of the model ran on this machine; None where nothing was timed.

    Attributes:
        prefill_tokens_per_second: Tokens of the prefill over the median of its times.
        prefill_speedup: Median over the rounds of the original's time over this one's.
        decode_tokens_per_second: Steps of decoding over the median of their times.
        decode_speedup: As of the prefill.
    """

    prefill_tokens_per_second: float | None = None
    prefill_speedup: float | None = None
    decode_tokens_per_second: float | None = None
    decode_speedup: float | None = None


@dataclasses.dataclass(frozen=True)
class ComparedFormat:
    """A row of the comparison.

    Attributes:
        format: The format; ``float32`` or the like of the original.
        quality: How far it is from the original.
        size: What it takes.
        cost: What it costs on the engine.
        speed: How fast it ran.
    """

    format: str
    quality: Quality
    size: Size
    cost: EngineCost
    speed: Speed

    def to_dict(self) -> dict[str, Any]:
        """The figures side by side, JSON-ready; an infinite one is null."""
        parts = (self.quality, self.size, self.cost, self.speed)
        figures = {key: value for part in parts for key, value in dataclasses.asdict(part).items()}
        return {"format": self.format, **{key: finite(value) for key, value in figures.items()}}


@dataclasses.dataclass(frozen=True)
class Note:
    """Why figures are missing, or are not what one would expect.

    Attributes:
        formats: The rows that it is about.
        text: The reason.
    """

    formats: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        """The note in a line."""
        return f"{', '.join(self.formats)}: {self.text}"


@dataclasses.dataclass(frozen=True)
class CompareReport:
    """What a comparison of formats found.

    Attributes:
        version: Version of mxcompile.
        source: The model.
        kind: ``decoder``, ``token classifier``, ``classifier`` or ``encoder``.
        data: What the quality was measured on.
        unit: What energies and speeds are for: a ``token``, or a ``sample`` where the model takes other data too.
        prefill: Tokens of a prefill; None where `unit` is ``sample``: then it is a run of one sample.
        decode: Tokens in the cache before a step of decoding; None without a cache.
        steps: Steps of decoding in a round of timing.
        rounds: Rounds of timing; 0 if nothing was timed.
        threads: Threads of onnxruntime; None for all cores.
        isa: Instruction set of the kernels; None without the custom-op library.
        engine: Name of the engine.
        technology: Name of the technology.
        cost_status: The weakest origin of the figures behind the costs; None if there are none.
        rows: The original, then the formats in the order in which they were given.
        notes: Why figures are missing.
        seconds: Time of all of it.
    """

    version: str
    source: str
    kind: str
    data: DataReport
    unit: str
    prefill: int | None
    decode: int | None
    steps: int
    rounds: int
    threads: int | None
    isa: str | None
    engine: str
    technology: str
    cost_status: str | None = None
    rows: tuple[ComparedFormat, ...] = ()
    notes: tuple[Note, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values."""
        return {**dataclasses.asdict(self), "rows": [row.to_dict() for row in self.rows]}
