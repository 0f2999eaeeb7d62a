"""Speed of MatMulBlock against other products of float32 rows, constant weights and B from the graph.

One thread: the tenth percentile of thread CPU time; several threads: the shortest wall-clock time, of one thread too.
With one row the weights of each candidate come from memory: sessions with weights of their own, more than fits any
cache, take turns. Quantizing A is part of every time. See products.py.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
from common import Table, parser, report
from onnx import helper
from products import FORMATS, SETTLE, Case, Make, Run, bits_of, candidates_of, makers, race, read_bandwidth

from mxcompile.formats import get_format
from mxcompile.runtime import library_info

SHAPES = ((4096, 4096), (4096, 11008))
ROWS = (1, 4, 16, 128, 512)
SWEEP = range(1, 33)
# fmt: off
ALL_FORMATS = (
    "amxfp4", "amxfp4_b16", "amxfp4_b64", "amxfp4_e4m3", "amxfp4_pot", "mxfp4", "mxfp4_b16", "nvfp4", "mxfp6_e3m2",
    "mxfp6_e2m3", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "dint4", "int4", "dint3", "int8", "none x amxfp4",
    "none x mxfp4", "amxfp4 x mxfp4",
)
# fmt: on
SIZES = ((4095, 4095), (4096, 4096), (4097, 4097), (1000, 1000), (1024, 1024), (1023, 33), (1024, 32))
"""k and n that fill blocks and panels, and their neighbours."""

# fmt: off
GRAPH_SHAPES = (
    (1, 500, 64), (1, 64, 500), (1, 2000, 64), (1, 64, 2000), (4, 500, 64), (4, 64, 500),
    (500, 500, 64), (500, 64, 500),
)
# fmt: on
"""m, n and k of Q K^T and of P V."""

RATIOS = {"ms": ".3f", "float32 / this": ".2f", "MatMulNBits / this": ".2f"}


def weights(k: int, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Weights ``[n, k]``."""
    return np.random.default_rng(0).standard_normal((n, k)).astype(np.float32)


def ratios(ms: Mapping[str, float], name: str) -> list[float]:
    """The time of a candidate, and those of the rivals over it."""
    return [ms[name], ms["float32"] / ms[name], ms["MatMulNBits"] / ms[name]]


def bench(case: Case, made: Mapping[str, Make], seconds: float) -> list[list[str | float]]:
    """Rows of the table for one product on one thread."""
    ms = race(candidates_of(case, made), seconds, time.thread_time)
    rows: list[list[str | float]] = []
    for name in ms:
        gigabytes = case.k * case.n * bits_of(name) / 8e6 / ms[name]
        rows.append([f"{case.k} x {case.n}", case.m, name, *ratios(ms, name), gigabytes])
    return rows


def bench_products(shapes: int, rows: list[int], seconds: float) -> list[Table]:
    """Our products and the others', weights from memory where there is one row."""
    columns = {"k x n": "", "m": "d", "weights": "", **RATIOS, "GB/s of weights": ".1f"}
    tables = []
    for k, n in SHAPES[:shapes]:
        made = makers(weights(k, n))
        body = [row for m in rows for row in bench(Case(k, n, m, cold=m == 1), made, seconds)]
        tables.append(Table(f"One core reads {read_bandwidth(seconds):.1f} GB/s from memory", columns, body))
    return tables


def bench_threads(seconds: float) -> Table:
    """Two threads against one, both by the clock on the wall."""
    made = makers(weights(*SHAPES[0]))
    rows: list[list[str | float]] = []
    for m in (128, 512):
        candidates: dict[str, Run] = {}
        for threads in (1, 2):
            ready = candidates_of(Case(*SHAPES[0], m, threads), made)
            candidates |= {f"{name}, {threads}": run for name, run in ready.items()}
        # Twice as long: where another program took a core, the library computes alone for 300 ms of products.
        ms = race(candidates, 2 * seconds, time.perf_counter, percentile=0, pause=SETTLE)
        rows += [[m, name, ms[f"{name}, 2"], ms[f"{name}, 1"] / ms[f"{name}, 2"]] for name in made]
    columns = {"m": "d", "weights": "", "ms": ".3f", "1 thread / this": ".2f"}
    return Table(f"Two threads, {SHAPES[0][0]} x {SHAPES[0][1]}", columns, rows)


def bench_busy(seconds: float) -> Table:
    """Two threads beside a process that never rests, against one thread: medians by the clock on the wall."""
    made = makers(weights(*SHAPES[0]))
    rows: list[list[str | float]] = []
    for m in (1, 16, 128):
        candidates: dict[str, Run] = {}
        for threads in (1, 2):
            ready = candidates_of(Case(*SHAPES[0], m, threads), made)
            candidates |= {f"{name}, {threads}": run for name, run in ready.items()}
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            ms = race(candidates, seconds, time.perf_counter, percentile=50, pause=SETTLE)
        finally:
            busy.kill()
            busy.wait()
        rows += [[m, name, ms[f"{name}, 2"], ms[f"{name}, 2"] / ms[f"{name}, 1"]] for name in made]
    columns = {"m": "d", "weights": "", "ms": ".3f", "this / 1 thread": ".2f"}
    return Table(f"Two threads beside a busy loop, {SHAPES[0][0]} x {SHAPES[0][1]}", columns, rows)


def bench_sweep(seconds: float) -> Table:
    """Every number of rows from 1 to 32, weights from the cache as far as they fit."""
    k, n = SHAPES[0]
    made = makers(weights(k, n))
    columns = {"m": "d", "weights": "", **RATIOS, "us a row": ".1f"}
    rows: list[list[str | float]] = []
    for m in SWEEP:
        ms = race(candidates_of(Case(k, n, m), made), seconds / 2, time.thread_time)
        rows += [[m, name, *ratios(ms, name), 1e3 * ms[name] / m] for name in ms]
    return Table(f"{k} x {n}, every m", columns, rows)


def bench_formats(seconds: float) -> Table:
    """All formats, 2048 x 2048."""
    made = makers(weights(2048, 2048), ALL_FORMATS)
    columns = {"m": "d", "weights": "", **RATIOS}
    rows: list[list[str | float]] = []
    for m in (1, 16, 128):
        ms = race(candidates_of(Case(2048, 2048, m), made), seconds / 4, time.thread_time)
        rows += [[m, name, *ratios(ms, name)] for name in ms]
    return Table("2048 x 2048, all formats", columns, rows)


def bench_sizes(seconds: float) -> Table:
    """Sizes that fill blocks and panels, and sizes that do not: time for a multiply-add."""
    columns = {"k x n": "", "m": "d", "weights": "", "ms": ".3f", "ps a multiply-add": ".2f"}
    rows: list[list[str | float]] = []
    for k, n in SIZES:
        made = {name: make for name, make in makers(weights(k, n)).items() if name in FORMATS}
        for m in (1, 16):
            ms = race(candidates_of(Case(k, n, m), made), seconds / 4, time.thread_time)
            rows += [[f"{k} x {n}", m, name, ms[name], 1e9 * ms[name] / (m * n * k)] for name in ms]
    return Table("Odd sizes", columns, rows)


def bench_quantize(seconds: float) -> Table:
    """QuantizeBlock against a copy of its input."""
    from ops import bound_run

    x = np.random.default_rng(0).standard_normal((512, 4096)).astype(np.float32)
    target = np.empty_like(x)
    candidates: dict[str, Run] = {"memory copy": lambda: np.copyto(target, x)}
    for name in ("amxfp4", "mxfp4", "dint4", "int8"):
        node = helper.make_node("QuantizeBlock", ["X"], ["codes", "scales"], domain="mxcompile", format=name)
        candidates[name] = bound_run(node, {"X": x}, {})
    ms = race(candidates, seconds, time.thread_time)
    rows = [[name, value, x.size / value / 1e6, ms["memory copy"] / value] for name, value in ms.items()]
    columns = {"QuantizeBlock": "", "ms": ".3f", "Gelem/s": ".2f", "copy / this": ".2f"}
    return Table("[512, 4096], float32, 1 thread", columns, rows)


def bench_graph(seconds: float) -> Table:
    """Products of attention, B from the graph: eight heads of 64 over 500 or 2000 positions; 1, 4 or all ask."""
    from ops import bound_run

    rng = np.random.default_rng(0)
    rows: list[list[str | float]] = []
    for m, n, k in GRAPH_SHAPES:
        a, b = (rng.standard_normal((8, size, k)).astype(np.float32) for size in (m, n))
        transposed = np.ascontiguousarray(b.swapaxes(-1, -2))
        node = helper.make_node("MatMul", ["A", "B"], ["Y"])
        candidates: dict[str, Run] = {"float32": bound_run(node, {"A": a, "B": transposed}, {})}
        for name in ("amxfp4", "mxfp4"):
            packed = get_format(name).quantize(b)
            feeds = {"A": a, "B_codes": packed.codes, "B_scales": packed.scales}
            attributes = {"a_format": name, "b_format": name, "k": k}
            node = helper.make_node("MatMulBlock", list(feeds), ["Y"], domain="mxcompile", **attributes)
            candidates[name] = bound_run(node, feeds, {})
        ms = race(candidates, seconds, time.thread_time)
        shape = f"[8, {m}, {k}] x [8, {k}, {n}]"
        rows += [[shape, name, value, ms["float32"] / value] for name, value in ms.items()]
    columns = {"A x B": "", "B": "", "ms": ".3f", "float32 / this": ".2f"}
    return Table("B from the graph, 1 thread", columns, rows)


TABLES: dict[str, Callable[[float], Table]] = {
    "threads": bench_threads,
    "graph": bench_graph,
    "quantize": bench_quantize,
    "sweep": bench_sweep,
    "formats": bench_formats,
    "sizes": bench_sizes,
    "busy": bench_busy,
}


def main() -> None:
    """Measures the tables that were asked for, and prints them."""
    arguments = parser("Speed of MatMulBlock, beside others.")
    every = ("products", *TABLES)
    arguments.add_argument("--tables", nargs="+", choices=every, default=every[:4], help="default: the first four")
    arguments.add_argument("--rows", type=int, nargs="+", default=ROWS, help="m of the products")
    arguments.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes")
    arguments.add_argument("--seconds", type=float, default=1.0, help="time for each candidate")
    chosen = arguments.parse_args()
    info = library_info()
    print(f"mxcompile {info.version}, {info.isa}\n")
    tables = []
    if "products" in chosen.tables:
        tables += bench_products(chosen.shapes, chosen.rows, chosen.seconds)
    report(chosen, *tables, *(bench_one(chosen.seconds) for name, bench_one in TABLES.items() if name in chosen.tables))


if __name__ == "__main__":
    main()
