"""Perplexity of the demo model on text that it was not trained on: float32, and every format.

With linear layers alone quantized, and with the attention products too.

The protocol of the papers: one text without special tokens, windows of 256 tokens that do not overlap, 255
predictions in each, the incomplete last window dropped.
"""

import tempfile
from pathlib import Path

from common import Table, export_demo, held_out_windows, parser, report

from mxcompile import runtime
from mxcompile.compiler import compile_model
from mxcompile.evaluation import perplexity
from mxcompile.formats import FORMATS, NONE


def main() -> None:
    """Compiles, measures and prints."""
    options = parser("perplexity of the demo model in every format")
    options.add_argument("--windows", type=int, help="only so many windows of 256 tokens")
    options.add_argument("--threads", type=int, default=2, help="threads of onnxruntime (default: 2)")
    arguments = options.parse_args()
    windows = held_out_windows(arguments.windows)
    rows: list[tuple[str, float, float, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        plain = export_demo(Path(folder))
        full = perplexity(runtime.create_session(plain, threads=arguments.threads), windows)
        rows.append((NONE, full, 0.0, full, 0.0))
        for name in FORMATS:
            found = []
            for attention in (False, True):
                path = Path(folder, f"{name}-{attention}.onnx")
                compile_model(plain, format=name, output=path, attention=attention)
                found.append(perplexity(runtime.create_session(path, threads=arguments.threads), windows))
            rows.append((name, found[0], found[0] / full - 1, found[1], found[1] / full - 1))
    title = f"Perplexity of the demo model, {len(windows)} held-out windows of {windows.shape[1]} tokens"
    columns = {"format": "", "linear layers": ".2f", "change": "+.1%", "and attention": ".2f", "change of it": "+.1%"}
    report(arguments, Table(title, columns, rows))


if __name__ == "__main__":
    main()
