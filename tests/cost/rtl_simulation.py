"""Runs a unit of mxcompile/cost/rtl in Icarus Verilog: a block pair a clock in, the outputs of the same clocks back."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

RTL = Path(__file__).parents[2] / "mxcompile" / "cost" / "rtl"
HAS_SIMULATOR = shutil.which("iverilog") is not None and shutil.which("vvp") is not None
"""Simulation tests are collected only where this holds."""

_TESTBENCH = """
module testbench;
  reg clk = 0;
  integer t;
  reg [{in_bits} - 1:0] stimuli[0:{clocks} - 1];
  reg [{in_bits} - 1:0] now;
  wire [{out_bits} - 1:0] result;
  {unit} unit(.clk(clk){ports});
  initial begin
    $readmemh("stimuli.hex", stimuli);
    for (t = 0; t < {clocks} + {latency}; t = t + 1) begin
      now = stimuli[t < {clocks} ? t : {clocks} - 1];
      #1 clk = 1;
      #1 clk = 0;
      #1 if (t >= {latency} - 1 && t < {clocks} + {latency} - 1) $display("%h", result);
    end
    $finish;
  end
endmodule
"""


def latency(unit: str) -> int:
    """The unit's clocks from operands to result, as the head comment of its file says."""
    found = re.search(r"^// LATENCY = (\d+)$", (RTL / f"{unit}.v").read_text("utf-8"), re.MULTILINE)
    assert found, f"{unit}.v: no line '// LATENCY = n'"
    return int(found[1])


def pack_lanes(codes: npt.NDArray[np.integer], bits: int) -> list[int]:
    """One integer a row of codes ``[clocks, lanes]``: lane 0 in the lowest bits, ``bits`` a lane (two's complement)."""
    mask = (1 << bits) - 1
    return [sum((int(code) & mask) << (bits * lane) for lane, code in enumerate(row)) for row in codes]


def simulate(
    unit: str,
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    outputs: Mapping[str, int],
    folder: Path,
    *,
    sources: Iterable[Path] = (),
    clocks_late: int | None = None,
) -> dict[str, list[int]]:
    """Feeds a unit one set of inputs a clock and collects what it answers, ``LATENCY`` clocks later.

    Args:
        unit: The module's name; by default it is read from its file, with every ``lib_*.v`` beside it.
        inputs: Port name -> (width in bits, one non-negative integer a clock). All ports but ``clk``.
        outputs: Port name -> width in bits.
        folder: An empty folder for the files of the run.
        sources: Verilog files in place of the unit's own, such as a mapped netlist and its cells.
        clocks_late: The latency, if not the one of the unit's file.

    Returns:
        Output port -> one integer a clock; unknown bits (``x``) are an error.
    """
    clocks = len(next(iter(inputs.values()))[1])
    late = latency(unit) if clocks_late is None else clocks_late
    in_bits = sum(width for width, _ in inputs.values())
    words = [0] * clocks
    ports, low = "", 0
    for name, (width, values) in inputs.items():
        assert len(values) == clocks, f"{unit}.{name}: {len(values)} values for {clocks} clocks"
        ports += f", .{name}(now[{low + width - 1}:{low}])"
        words = [word | (value << low) for word, value in zip(words, values, strict=True)]
        low += width
    low = 0
    for name, width in outputs.items():
        ports += f", .{name}(result[{low + width - 1}:{low}])"
        low += width
    (folder / "stimuli.hex").write_text("\n".join(f"{word:x}" for word in words), "ascii")
    bench = _TESTBENCH.format(unit=unit, in_bits=in_bits, out_bits=low, clocks=clocks, latency=late, ports=ports)
    (folder / "testbench.v").write_text(bench, "ascii")
    files = list(sources) or [RTL / f"{unit}.v", *sorted(RTL.glob("lib_*.v"))]
    _run(["iverilog", "-g2005", "-s", "testbench", "-o", "testbench.vvp", "testbench.v", *map(str, files)], folder)
    lines = _run(["vvp", "-n", "testbench.vvp"], folder).split()
    assert len(lines) == clocks, f"{unit}: {len(lines)} results for {clocks} clocks"
    results = [int(line, 16) for line in lines]
    answers, low = {}, 0
    for name, width in outputs.items():
        answers[name] = [(result >> low) & ((1 << width) - 1) for result in results]
        low += width
    return answers


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout
