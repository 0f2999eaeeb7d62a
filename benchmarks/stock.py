"""The compiled demo model with the custom-op library and in a stock onnxruntime: same numbers, other speed.

The two add in different places, so a difference of exactly 0 needs a reason: products of two decoded 4-bit elements
have so few significant bits that float32 usually holds their sums exactly, in any order. With float activations
(``/none``) it does not, and the table shows the rounding.

Speed is measured on one thread: the idle threads of one session would spin while the next one has its turn.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from common import (
    Table,
    compile_all,
    decoder_feeds,
    held_out_windows,
    log_probabilities,
    parser,
    report,
    seconds_in_turns,
)

from mxcompile import runtime
from mxcompile.compiler import compile_model
from mxcompile.formats import NONE

DECODED = 32


def divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """Mean KL divergence of distributions given as log probabilities."""
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def agreement(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """Share of positions at which both prefer the same token."""
    return float((p.argmax(-1) == q.argmax(-1)).mean())


def decode(session: onnxruntime.InferenceSession, prompt: npt.NDArray[np.int64]) -> Callable[[], None]:
    """A run of DECODED greedy steps behind a prompt ``[1, length]``."""
    names = [output.name for output in session.get_outputs()]
    prefill = session.run(names, decoder_feeds(session, prompt))

    def run() -> None:
        logits, *past = prefill
        for _ in range(DECODED):
            token = logits[:, -1:].argmax(-1)
            logits, *past = session.run(names, decoder_feeds(session, token, past))

    return run


def prefill(session: onnxruntime.InferenceSession, ids: npt.NDArray[np.int64]) -> Callable[[], object]:
    """A run over ``ids [1, length]`` with an empty cache."""
    feeds = decoder_feeds(session, ids)
    return lambda: session.run(None, feeds)


def rates(tokens: int, seconds: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Tokens a second: the median, and the bounds of the slowest and of the fastest quarter."""
    median, slow, fast = tokens / np.quantile(seconds, (0.5, 0.75, 0.25))
    return float(median), float(slow), float(fast)


FORMATS = ("amxfp4", "mxfp4", "dint4")
"""What is compared."""


def main() -> None:
    """Compiles, measures and prints."""
    options = parser("the compiled demo model with the library and without it")
    options.add_argument("--windows", type=int, default=32, help="windows to compare on (default: 32)")
    options.add_argument("--threads", type=int, default=1, help="threads of onnxruntime (default: 1)")
    arguments = options.parse_args()
    windows = held_out_windows(arguments.windows)
    same, speed = [], []
    with tempfile.TemporaryDirectory() as folder:
        models = compile_all(Path(folder), FORMATS)
        plain = runtime.create_session(models[NONE], threads=arguments.threads)
        full = log_probabilities(plain, windows)
        sessions = {(NONE, "float32"): plain}
        for name in FORMATS:
            weight_only = f"{name}/{NONE}"
            models[weight_only] = Path(folder, f"{name}-weights.onnx")
            compile_model(models[NONE], format=name, activations=NONE, output=models[weight_only])
        for name in [each for each in models if each != NONE]:
            ours, stock = (
                runtime.create_session(models[name], threads=arguments.threads, library=library)
                for library in (True, False)
            )
            sessions |= {(name, "library"): ours, (name, "stock"): stock}
            p, q = log_probabilities(ours, windows), log_probabilities(stock, windows)
            for pair, a, b in ((f"{name}: library, stock", p, q), (f"{name}: float32, library", full, p)):
                same.append((pair, divergence(a, b), agreement(a, b), float(np.abs(a - b).max())))
        prefills = seconds_in_turns([prefill(session, windows[:1]) for session in sessions.values()])
        decodings = seconds_in_turns([decode(session, windows[:1, :64]) for session in sessions.values()])
    for (name, how), one, other in zip(sessions, prefills, decodings, strict=True):
        speed.append((name, how, *rates(windows.shape[1], one), *rates(DECODED, other)))
    report(
        arguments,
        Table(
            f"Numbers, {windows.size} positions of held-out text",
            {"pair": "", "KL divergence": ".1e", "same top token": ".2%", "largest difference of log p": ".1e"},
            same,
        ),
        Table(
            f"Speed, threads: {arguments.threads}, tokens/s: median (slowest, fastest quarter), candidates in turns",
            {"format": "", "ops": "", f"prefill of {windows.shape[1]}": ".0f", "slow": ".0f", "fast": ".0f"}
            | {"decoding": ".0f", "slower": ".0f", "faster": ".0f"},
            speed,
        ),
    )


if __name__ == "__main__":
    main()
