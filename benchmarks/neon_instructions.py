"""Executed instructions of the NEON kernels beside the scalar ones, under emulation: no times, but exact counts.

Needs qemu-aarch64 with plugins, a C compiler for the plugin, and what `make neon` built: build/neon/kernels_run.
A count is the difference between a program that runs a kernel twice and one that runs it once, so that neither its
start nor its data are in it. Quantizing A is part of a product.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import Table, parser, report

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "build/neon/kernels_run"
EMULATOR = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
LEVELS = ("scalar", "neon", "neondot")
ROWS, K, N = 4, 4096, 256
"""Rows of a tensor that is quantized, elements of a row, rows of B."""

PRODUCTS = (
    ("amxfp4", "amxfp4"),
    ("mxfp4", "mxfp4"),
    ("nvfp4", "nvfp4"),
    ("mxfp8_e4m3", "mxfp8_e4m3"),
    ("mxint8", "mxint8"),
    ("int8", "dint4"),
)
ROW_FORMATS = ("amxfp4", "mxfp4", "nvfp4", "mxfp8_e4m3", "mxint8", "dint4", "int8")
PACKING = ("amxfp4", "mxfp4", "nvfp4")
"""What is packed when the weights are constant; from the graph it is packed on the way."""


def build_plugin(folder: Path) -> Path:
    """The plugin that counts, compiled."""
    plugin = folder / "count_instructions.so"
    source = Path(__file__).parent / "count_instructions.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, source], check=True)
    return plugin


def executed(plugin: Path, level: str, arguments: Sequence[str | int], times: int) -> int:
    """Instructions of the program that runs a kernel so often."""
    program = [str(PROGRAM), level, *map(str, arguments), str(times)]
    done = subprocess.run([*EMULATOR, "-plugin", plugin, *program], check=True, capture_output=True, text=True)
    return int(done.stderr.split()[-1])


def cases() -> dict[str, tuple[list[str | int], int]]:
    """What is counted: arguments of the program, and how often 32 elements are in it."""
    made: dict[str, tuple[list[str | int], int]] = {}
    for what in ("quantize", "dequantize"):
        for name in ROW_FORMATS:
            made[f"{what} {name}"] = ([what, name, ROWS, K], ROWS * K // 32)
    for a, b in PRODUCTS:
        sources = {"constant": ", constant B", "graph": ", B from the graph"} if b in PACKING else {"constant": ""}
        for where, source in sources.items():
            for m in (1, 16):
                made[f"{a} x {b}, m = {m}{source}"] = ([where, a, b, m, N, K], m * N * K // 32)
    return made


def main() -> None:
    arguments = parser("Instructions of the NEON kernels, beside the scalar ones.").parse_args()
    if not PROGRAM.exists() or shutil.which(EMULATOR[0]) is None:
        sys.exit(f"{PROGRAM} or {EMULATOR[0]} is missing: run `make neon` first, it says what it needs")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plugin = build_plugin(Path(folder))
        for name, (case, units) in cases().items():
            counts = [executed(plugin, level, case, 2) - executed(plugin, level, case, 1) for level in LEVELS]
            per_unit = [count / units for count in counts]
            rows.append([name, *per_unit, *(counts[0] / count for count in counts[1:])])
    columns = {"per 32 elements (of B, and row of A)": ""}
    columns |= dict.fromkeys(LEVELS, ".1f") | {"scalar / neon": ".1f", "scalar / neondot": ".1f"}
    report(arguments, Table(f"Instructions, k = {K}", columns, rows))


if __name__ == "__main__":
    main()
