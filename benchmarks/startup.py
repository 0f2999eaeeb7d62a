"""Time that ``mxcompile --help`` takes: the price of every call of the command line. Goal: below 0.5 s."""

import statistics
import subprocess
import sys
import time

from common import Table, parser, report

RUNS = 10
COMMANDS = {"python alone": ["-c", "pass"], "mxcompile --help": ["-m", "mxcompile.cli", "--help"]}


def seconds(command: list[str]) -> float:
    """Wall-clock time of one run in a fresh process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    arguments = parser("start-up time of the command line").parse_args()
    rows = []
    for name, command in COMMANDS.items():
        times = [seconds([sys.executable, *command]) for _ in range(RUNS)]
        rows.append((name, statistics.median(times), max(times)))
    columns = {"command": "", "median s": ".3f", "longest s": ".3f"}
    report(arguments, Table(f"Start-up, {RUNS} runs", columns, rows))


if __name__ == "__main__":
    main()
