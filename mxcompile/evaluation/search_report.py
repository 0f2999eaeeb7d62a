"""What a search for a mixture of formats found."""

import dataclasses
from typing import Any

from mxcompile.evaluation.metrics import Figures
from mxcompile.evaluation.report import DataReport, finite


@dataclasses.dataclass(frozen=True)
class Assigned:
    """What was chosen for a product.

    Attributes:
        layer: Its path.
        format: The candidate; ``none`` for float.
        weights: Format of the weights, or of keys or values.
        activations: Format of the other operand.
        kl: Divergence that it alone causes, nats.
        cost: Its cost.
    """

    layer: str
    format: str
    weights: str
    activations: str
    kl: float
    cost: float


@dataclasses.dataclass(frozen=True)
class FrontPoint:
    """An assignment of the front, or a candidate for all products.

    Attributes:
        cost: Sum of the products' costs.
        perplexity_increase: Predicted by the sum of divergences; measured of a candidate for all products.
        counts: Products in each format.
    """

    cost: float
    perplexity_increase: float
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class SearchReport:
    """What a search found.

    Attributes:
        version: Version of mxcompile.
        source: The model.
        output: Where the result is.
        objective: What is least.
        unit: Of costs: ``bits a weight``, or ``pJ a token``.
        max_ppl_increase: The bound.
        data: What was measured on.
        products: The assignment.
        cost: Its cost.
        predicted_increase: Of its perplexity, by the sum of divergences.
        measured: The figures of the compiled model.
        evaluations: Models that were compiled and evaluated.
        front: Predicted: cost against quality, the best quality first.
        uniform: Measured: each candidate for all products.
        seconds: Time of all of it.
    """

    version: str
    source: str
    output: str
    objective: str
    unit: str
    max_ppl_increase: float
    data: DataReport
    products: tuple[Assigned, ...]
    cost: float
    predicted_increase: float
    measured: Figures
    evaluations: int
    front: tuple[FrontPoint, ...]
    uniform: tuple[FrontPoint, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values; an infinite figure is null."""
        content = dataclasses.asdict(self)
        content["measured"]["perplexity_increase"] = self.measured.perplexity_increase
        result = finite(content)
        assert isinstance(result, dict)
        return result
