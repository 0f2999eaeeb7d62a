"""Draws the pictures of docs/cost-model.md and writes its tables of units: ``python docs/plot_cost_model.py MODEL``.

Needs matplotlib (``pip install '.[docs]'``). The units are those of the shipped technology files; MODEL is the demo
model in amxfp4 (``make demo`` leaves it in demo-out/).
"""

import itertools
import sys
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from pictures import save_figure

from mxcompile.cost import text
from mxcompile.cost.estimate import ENERGIES
from mxcompile.cost.html import COLOURS
from mxcompile.cost.report import CostReport, report_model
from mxcompile.cost.unit_cost import Technology, load_published, load_technology
from mxcompile.onnx_file import read_model

PAGE: Final = Path(__file__).parent / "cost-model.md"
BLUE, ORANGE = "#0072B2", "#D55E00"
WIDTH: Final = 9.0  # inches
TECHNOLOGIES: Final = ("freepdk45", "osu018")
REFERENCE: Final = "int8_int8"
FORMATS: Final = ("amxfp4", "mxfp4", "nvfp4", "dint4", "int8", "float16")
TOKENS: Final = 128
PUBLISHED: Final = (
    ("dINT4 x INT8 over INT8 x INT8", "dint/dint4_int8", "dint/int8_int8", "dint4_int8", "int8_int8"),
    ("MXINT8 over MXFP8 (E4M3)", "int-vs-fp/mxint8", "int-vs-fp/mxfp8", "mxint8", "mxfp8_e4m3"),
    ("NVFP4 over MXFP8 (E4M3)", "int-vs-fp/nvfp4", "int-vs-fp/mxfp8", "nvfp4", "mxfp8_e4m3"),
)
"""What is compared: a published unit over another one, and ours."""


def ratios(technology: Technology, field: str) -> dict[str, float]:
    """A figure of every dot unit over that of INT8."""
    base = getattr(technology.units[REFERENCE], field)
    return {name: getattr(unit, field) / base for name, unit in technology.units.items() if unit.kind == "dot"}


def units() -> Figure:
    """Area and energy of the units over INT8 in both libraries, the smallest area first."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 5.2), sharey=True, layout="constrained")
    libraries = [load_technology(name) for name in TECHNOLOGIES]
    first = ratios(libraries[0], "area_um2")
    names = sorted(first, key=lambda name: first[name])
    for axis, field, title in zip(axes, ("area_um2", "energy_pj_per_op"), ("area", "energy of a MAC"), strict=True):
        found = [ratios(library, field) for library in libraries]
        for row, name in enumerate(names):
            axis.plot([each[name] for each in found], [row, row], color="#999999", linewidth=1.5, zorder=1)
        for library, each, marker, colour in zip(libraries, found, "os", (BLUE, ORANGE), strict=True):
            label = f"{library.name}, {library.node_nm:g} nm"
            axis.scatter(
                [each[name] for name in names], range(len(names)), marker=marker, color=colour, label=label, s=28
            )
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
        axis.minorticks_off()
        axis.grid(axis="x", color="#DDDDDD")
        axis.set_xlabel(f"{title}, INT8 x INT8 = 1")
    axes[0].set_yticks(range(len(names)), names)
    axes[1].legend(loc="lower right")
    return fig


def formats(report: CostReport) -> Figure:
    """Energy per token of the model in several formats, split into its parts."""
    fig, axes = plt.subplots(1, len(report.phases), figsize=(WIDTH, 3.4), layout="constrained")
    for axis, phase in zip(axes, report.phases, strict=True):
        names = [each.format for each in phase.alternatives]
        left = [0.0] * len(names)
        for part in ENERGIES:
            values = [
                1e-6 * (getattr(each.total, f"{part}_energy_pj") or 0) / each.total.tokens
                for each in phase.alternatives
            ]
            axis.barh(names, values, left=left, color=COLOURS[part], label=text.LABELS[part])
            left = [start + value for start, value in zip(left, values, strict=True)]
        axis.invert_yaxis()
        axis.set_title(f"{phase.phase.name}, {TOKENS} tokens", fontsize=10)
        axis.set_xlabel("uJ per token")
    fig.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=len(ENERGIES))
    return fig


def unit_table() -> str:
    """Area and energy of every unit in both libraries, in Markdown."""
    first, second = (load_technology(name).units for name in TECHNOLOGIES)
    lines = [f"| unit | {TECHNOLOGIES[0]}: um2 | pJ | {TECHNOLOGIES[1]}: um2 | pJ | |", "|---|---|---|---|---|---|"]
    for name, unit in first.items():
        cells = [f"{each.area_um2:.0f} | {each.energy_pj_per_op:.3g}" for each in (unit, second[name])]
        lines.append(f"| `{name}` | {cells[0]} | {cells[1]} | {unit.architecture} |")
    return "\n".join(lines)


def ratio_table() -> str:
    """Published and measured ratios of area and energy side by side, in Markdown."""
    published = {unit.name: unit for unit in load_published()}
    libraries = [load_technology(name).units for name in TECHNOLOGIES]
    lines = ["| | published area | measured | published energy | measured |", "|---|---|---|---|---|"]
    for title, paper, base, unit, reference in PUBLISHED:
        row, other = published[paper], published[base]
        cells = []
        for field, relative in (("area_um2", "relative_area"), ("energy_pj_per_op", "relative_energy")):
            said = getattr(row, relative)
            said = getattr(row, field) / getattr(other, field) if said is None else said
            found = [getattr(units[unit], field) / getattr(units[reference], field) for units in libraries]
            cells += [f"{said:.2f}", f"{min(found):.2f} to {max(found):.2f}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def asymmetric_table() -> str:
    """Area and energy of the units for two scales over those for one, in Markdown."""
    libraries = [load_technology(name).units for name in TECHNOLOGIES]
    lines = ["| unit | area over `fp4_e5m2` | energy | area over `mxfp4` | energy |", "|---|---|---|---|---|"]
    for name in [name for name in libraries[0] if name.startswith("amxfp4")]:
        cells = []
        for twin, field in itertools.product(("fp4_e5m2", "mxfp4"), ("area_um2", "energy_pj_per_op")):
            found = [getattr(units[name], field) / getattr(units[twin], field) for units in libraries]
            cells.append(f"{min(found):.2f} to {max(found):.2f}")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def engine_table(report: CostReport) -> str:
    """What quantizers and second scales have in the demo model's cost, in Markdown."""
    lines = ["| demo model on `edge-npu` | area | energy |", "|---|---|---|"]
    for phase in report.phases:
        added, name = phase.overhead, f"{phase.phase.name}, {TOKENS} tokens"
        shares = {
            "second scales": (added.asymmetric_area_share, added.asymmetric_energy_share),
            "quantizers": (added.quantizer_area_share, added.quantizer_energy_share),
        }
        lines += [
            f"| {title}, {name} | {text.percent(area)} | {text.percent(energy)} |"
            for title, (area, energy) in shares.items()
        ]
    return "\n".join(lines)


def write_tables(tables: dict[str, str]) -> None:
    """Puts the tables between their marks in the page."""
    content = PAGE.read_text("utf-8")
    for name, table in tables.items():
        before, rest = content.split(f"<!-- {name} -->\n")
        content = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{rest.split(f'<!-- /{name} -->')[1]}"
    PAGE.write_text(content, "utf-8")


def main() -> None:
    """Writes the pictures and the tables."""
    model = read_model(sys.argv[1], compiled=True)
    report = report_model(sys.argv[1], model, prefill=TOKENS, decode=TOKENS, formats=FORMATS)
    for name, picture in {"cost-units": units(), "cost-formats": formats(report)}.items():
        save_figure(picture, PAGE.parent / "images" / f"{name}.png")
    write_tables(
        {
            "units": unit_table(),
            "asymmetric": asymmetric_table(),
            "published": ratio_table(),
            "engine": engine_table(report),
        }
    )


if __name__ == "__main__":
    main()
