"""Synthesis of a unit with yosys and abc for one cell library and clock.

The scripts are in synthesis_scripts/. Those of abc are tried in their order, from the one that gives the least area;
the first whose netlist meets the clock by static timing is taken. So each unit gets the best that these tools do at
the clock that all share.
"""

import dataclasses
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from mxcompile.cost.liberty import Library
from mxcompile.cost.netlist import Netlist, read_netlist
from mxcompile.cost.rtl_units import digest
from mxcompile.cost.timing import arrivals
from mxcompile.errors import CostModelError

SCRIPTS: Final = Path(__file__).parent / "synthesis_scripts"
GENERIC: Final = SCRIPTS / "generic.ys"
MAP: Final = SCRIPTS / "map.ys"
ABC: Final = SCRIPTS / "abc.txt"
FULL_ADDER: Final = SCRIPTS / "full_adder.v"

LOGIC_SHARE: Final = 0.9
"""What abc may use of a clock: the rest is for registers. Only a wish; the timing afterwards decides."""

TIMEOUT_S: Final = 900
"""Of one run of yosys; some scripts of abc do not end on wide units."""


@dataclasses.dataclass(frozen=True)
class CellLibrary:
    """A cell library and what one must know to use it.

    Attributes:
        name: Of the technology file, and of the full adder in full_adder.v.
        path: The Liberty file.
        node_nm: Feature size.
        corner: Process corner.
        clock_hz: The clock that every unit must meet.
        slew_ns: About the median slew in these units: of the clock, and where internal energies are read.
        source: Where the library comes from.
    """

    name: str
    path: Path
    node_nm: float
    corner: str
    clock_hz: float
    slew_ns: float
    source: str


@dataclasses.dataclass(frozen=True)
class Synthesized:
    """A unit in cells of a library.

    Attributes:
        netlist: The cells.
        delay_ns: The longest way from register to register, setup time included.
        script: Which line of abc.txt made it, from 1.
    """

    netlist: Netlist
    delay_ns: float
    script: int


def script_sha256() -> str:
    """Digest of the scripts."""
    return digest({path.name: path.read_text("utf-8") for path in (GENERIC, MAP, ABC, FULL_ADDER)})


def yosys_version() -> str:
    """The version of the yosys on the PATH.

    Raises:
        CostModelError: There is none.
    """
    if shutil.which("yosys") is None:
        raise CostModelError("yosys is not on the PATH: install it (Debian: apt-get install yosys berkeley-abc)")
    text = subprocess.run(["yosys", "-V"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Yosys (\S+)", text)
    return found[1] if found else text.strip()


def synthesize(top: str, sources: tuple[Path, ...], cells: CellLibrary, library: Library) -> Synthesized:
    """Synthesizes a module.

    Args:
        top: The module.
        sources: Its Verilog files.
        cells: The library's description.
        library: The library as `liberty.read_library` gives it.

    Raises:
        CostModelError: yosys fails, or no script meets the clock; the message says by how much.
    """
    period_ns = 1e9 / cells.clock_hz
    best: Synthesized | None = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = {
            "top": top,
            "library": cells.name,
            "liberty": str(cells.path.resolve()),
            "full_adder": str(FULL_ADDER),
            "generic": "generic.il",
            "netlist": "netlist.json",
            "delay_ps": str(round(LOGIC_SHARE * period_ns * 1e3)),
        }
        reads = "".join(f"read_verilog {source.resolve()}\n" for source in sources)
        _yosys(reads + GENERIC.read_text("utf-8"), values, folder, top)
        for number, pair in enumerate(ABC.read_text("utf-8").splitlines(), start=1):
            rest, loop = pair.split()
            script = MAP.read_text("utf-8").replace("{abc}", rest).replace("{abc_loop}", loop)
            _yosys(script, values, folder, top)
            netlist = read_netlist(folder / "netlist.json", top, library)
            delay = arrivals(netlist, cells.slew_ns).delay_ns
            if best is None or delay < best.delay_ns:
                best = Synthesized(netlist, delay, number)
            if delay <= period_ns:
                return Synthesized(netlist, delay, number)
    assert best is not None
    raise CostModelError(
        f"{top}: its longest path takes {best.delay_ns:.3f} ns in {cells.name}, the clock is {period_ns:.3f} ns: "
        "add a pipeline stage, or lower clock_hz of the library for all units"
    )


def _yosys(script: str, values: dict[str, str], folder: Path, top: str) -> None:
    for key, value in values.items():
        script = script.replace(f"{{{key}}}", value)
    (folder / "script.ys").write_text(script, "utf-8")
    command = ["nice", "-n", "10", "yosys", "-ql", "log", "script.ys"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise CostModelError(f"{top}: yosys did not end within {TIMEOUT_S} s") from error
    if done.returncode:
        raise CostModelError(f"{top}: yosys failed: {done.stderr.strip().splitlines()[-1:]}")
