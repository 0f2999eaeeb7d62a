"""Perplexity of the demo model on text that it was not trained on: float32, and every format.

The protocol of the papers: one text without special tokens, windows of 256 tokens that do not overlap, 255
predictions in each, the incomplete last window dropped.
"""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from common import Table, compile_all, held_out_windows, log_probabilities, parser, report

from mxcompile import runtime

BATCH = 4


def perplexity(session: onnxruntime.InferenceSession, windows: npt.NDArray[np.int64]) -> float:
    """Exponential of the mean negative log-likelihood of the windows' tokens but the first."""
    total = 0.0
    for start in range(0, len(windows), BATCH):
        batch = windows[start : start + BATCH]
        predicted = log_probabilities(session, batch)[:, :-1]
        total -= np.take_along_axis(predicted, batch[:, 1:, None], axis=-1).sum()
    return float(np.exp(total / windows[:, 1:].size))


def main() -> None:
    """Compiles, measures and prints."""
    options = parser("perplexity of the demo model in every format")
    options.add_argument("--windows", type=int, help="only so many windows of 256 tokens")
    options.add_argument("--threads", type=int, default=2, help="threads of onnxruntime (default: 2)")
    arguments = options.parse_args()
    windows = held_out_windows(arguments.windows)
    rows: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in compile_all(Path(folder)).items():
            measured = perplexity(runtime.create_session(path, threads=arguments.threads), windows)
            if not rows:
                full = measured
            rows.append((name, measured, measured / full - 1))
    title = f"Perplexity of the demo model, {len(windows)} held-out windows of {windows.shape[1]} tokens"
    report(arguments, Table(title, {"weights and activations": "", "perplexity": ".2f", "change": "+.1%"}, rows))


if __name__ == "__main__":
    main()
