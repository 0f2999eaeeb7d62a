"""Is it still the same model? Fidelity of a compiled model to its reference, on text or on arrays.

`evaluate` runs both through onnxruntime, one window at a time, and gives an `EvalReport`. docs/evaluation.md says what
is measured and how.
"""

from mxcompile.evaluation.fidelity import EvalOptions, evaluate, perplexity
from mxcompile.evaluation.report import EvalReport
from mxcompile.evaluation.thresholds import Thresholds

__all__ = ["EvalOptions", "EvalReport", "Thresholds", "evaluate", "perplexity"]
