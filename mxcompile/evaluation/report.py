"""What an evaluation found."""

import dataclasses
import math
from typing import Any

from mxcompile.evaluation.flips import Flips
from mxcompile.evaluation.metrics import Figures, Pair
from mxcompile.evaluation.thresholds import Gate


@dataclasses.dataclass(frozen=True)
class DataReport:
    """What was measured on.

    Attributes:
        files: The files, in order.
        missing: Files of the reference's own list that this machine does not have.
        sha256: Digest of the inputs, all windows together.
        windows: Number of windows or samples.
        seq_len: Tokens of each; None of other data.
    """

    files: tuple[str, ...]
    missing: tuple[str, ...]
    sha256: str
    windows: int
    seq_len: int | None


@dataclasses.dataclass(frozen=True)
class EvalReport:
    """What an evaluation found.

    Attributes:
        version: Version of mxcompile.
        model: The file that was measured.
        reference: What it was compared with.
        kind: ``decoder``, ``token classifier``, ``classifier`` or ``encoder``.
        data: What on; None if only tasks were run.
        figures: How far the outputs are apart; None as `data`.
        flips: How greedy texts differ; None without a key-value cache, or if no prompts were wanted.
        tasks: Results of lm-evaluation-harness: task -> metric -> both models.
        gates: The thresholds that were set.
        seconds: Time of all of it.
    """

    version: str
    model: str
    reference: str
    kind: str
    data: DataReport | None
    figures: Figures | None
    flips: Flips | None
    tasks: dict[str, dict[str, Pair]]
    gates: tuple[Gate, ...]
    seconds: float

    @property
    def failed(self) -> tuple[Gate, ...]:
        """The thresholds that are not kept."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values, the figures at the top; an infinite one is null."""
        content = dataclasses.asdict(self)
        names = [field.name for field in dataclasses.fields(Figures)]
        figures = content.pop("figures") or dict.fromkeys(names)
        figures["perplexity_increase"] = self.figures and self.figures.perplexity_increase
        gates = [gate.to_dict() for gate in self.gates]
        result = finite({**content, **figures, "gates": gates})
        assert isinstance(result, dict)
        return result


def finite(value: Any) -> Any:
    """The same with None in place of infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
