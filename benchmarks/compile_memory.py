"""Time and memory of compiling a model of 0.5 billion parameters with random weights (the dimensions of Qwen2-0.5B).

Goals: the whole compilation, PyTorch's export included, below 10 GB; the compiler's own part, from an .onnx file to
an .onnx file, below 2 GB and 60 s. Each part runs in a fresh process, whose peak resident memory counts.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Table, parser, report

MAKE = """
import sys, torch
from transformers import Qwen2Config, Qwen2ForCausalLM
torch.manual_seed(0)
config = Qwen2Config(vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                     num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True, dtype="bfloat16")
Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])
"""

EXPORT = """
import sys
from mxcompile import exporter, onnx_file
with exporter.open_model(sys.argv[1]) as exported:
    onnx_file.write_model(exported.models["model.onnx"], sys.argv[2])
"""

COMPILE = """
import sys, mxcompile
mxcompile.compile(sys.argv[1], format="amxfp4", output=sys.argv[2])
"""

MEASURE = """
import json, resource, time
start = time.perf_counter()
{code}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({{"seconds": time.perf_counter() - start, "peak": peak}}))
"""


def measure(code: str, *arguments: str | Path) -> tuple[float, float]:
    """Seconds and peak gigabytes of Python code in a fresh process."""
    command = [sys.executable, "-c", MEASURE.format(code=code), *map(str, arguments)]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    return result["seconds"], result["peak"] / 1e9


def main() -> None:
    """Builds the model, measures and prints."""
    arguments = parser("time and memory of compiling 0.5 billion parameters").parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(MAKE, folder / "model")
        measure(EXPORT, folder / "model", folder / "plain.onnx")
        parts = [
            ("Hugging Face folder to .onnx", folder / "model", folder / "whole.onnx"),
            (".onnx to .onnx", folder / "plain.onnx", folder / "ours.onnx"),
        ]
        for part, source, output in parts:
            seconds, peak = measure(COMPILE, source, output)
            files = sum(file.stat().st_size for file in folder.glob(f"{output.name}*"))
            rows.append((part, seconds, peak, files / 1e9))
    columns = {"from, to": "", "seconds": ".1f", "peak GB": ".2f", "output GB": ".2f"}
    report(arguments, Table("Compiling random weights of Qwen2-0.5B's dimensions to amxfp4", columns, rows))


if __name__ == "__main__":
    main()
