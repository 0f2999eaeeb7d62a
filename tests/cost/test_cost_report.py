"""The report: JSON, CSV and HTML say what the estimate found, and where it comes from."""

import csv
import dataclasses
import html
import html.parser
import io
import json
import re

import pytest
from cost_models import engine, float_linear, linear, softmax, technology, workload

from mxcompile.cost import text
from mxcompile.cost.html import MAXIMUM_ROWS, to_html
from mxcompile.cost.phases import Phase
from mxcompile.cost.report import CostReport, cost_report, weakest
from mxcompile.cost.table import show
from mxcompile.cost.totals import total
from mxcompile.cost.workload import NodeWork, Uncovered, Workload

NODES = (linear("/layers.0/<q>"), float_linear(), softmax())
ODD = Uncovered("/odd", "Odd", "there is no formula", 9)
VOID = {"br", "hr", "img", "input", "meta", "link"}


class _Fixed:
    """Work that is the same for all sizes, with a node that nothing is known of."""

    def __init__(self, *nodes: NodeWork) -> None:
        self._work = dataclasses.replace(workload(*nodes), uncovered=(ODD,))
        self.assumed = {"tokens_per_expert": "sequence_length/2"}

    def at(self, dims: object) -> Workload:
        return self._work


def report(*nodes: NodeWork, formats: tuple[str, ...] = ("mxfp4", "float16")) -> CostReport:
    """A prefill and a decode of the same work."""
    work = _Fixed(*(nodes or NODES))
    phases = [Phase("prefill", {"batch_size": 1}, 8), Phase("decode", {"batch_size": 1}, 1)]
    return cost_report("m.onnx", work, 2, engine(sram_bytes=1150), technology(), phases, formats=formats)


def test_the_json_has_totals_and_nodes_of_the_first_phase_at_the_top() -> None:
    content = json.loads(json.dumps(report().to_dict(), allow_nan=False))
    whole = total(report().phases[0].cost)
    assert content["total"]["macs"] == whole.macs == sum(node["macs"] for node in content["nodes"])
    assert content["total"]["energy_pj"] == whole.energy_pj
    assert [node["name"] for node in content["nodes"]] == ["/layers.0/<q>", "/head", "/softmax"]
    assert content["phases"]["prefill"]["total"] == content["total"]
    assert list(content["phases"]) == ["prefill", "decode"]


def test_a_single_phase_stands_at_the_top_alone() -> None:
    one = dataclasses.replace(report(), phases=report().phases[1:])
    content = one.to_dict()
    assert (content["phase"], "phases" in content) == ("decode", False)


def test_what_is_not_covered_stands_in_the_json() -> None:
    found = report().to_dict()["coverage"]
    assert (found["counted"], found["nodes"], found["share"]) == (3, 4, 0.75)
    assert [(each["op_type"], each["reason"], each["elements"]) for each in found["uncovered"]] == [
        ("Odd", "there is no formula", 9)
    ]


def test_every_figure_in_use_has_its_origin_and_the_weakest_one_is_that_of_the_whole() -> None:
    content = report().to_dict()
    names = {figure["name"] for figure in content["figures"]}
    assert names == {
        *("amxfp4_tagged", "fp16", "quantize_amxfp4", "vector_energy_pj_per_op"),
        *("buffer_energy_pj_per_byte", "sram_energy_pj_per_byte", "dram_energy_pj_per_byte"),
    }
    assert all(figure["status"] and figure["source"] for figure in content["figures"])
    assert content["status"] == "assumed"
    assert weakest(["measured", "published"]) == "published"


def test_what_is_taken_for_dimensions_that_depend_on_data_is_said() -> None:
    assert report().to_dict()["assumed"] == {"tokens_per_expert": "sequence_length/2"}
    file = io.StringIO()
    show(report(), 1, file)
    assert "tokens_per_expert = sequence_length/2: assumed" in file.getvalue()
    assert "sequence_length/2" in to_html(report())


def test_the_comparison_stands_in_the_json_with_ratios_to_the_model() -> None:
    content = report().to_dict()
    mxfp4, float16 = content["compare"]
    assert (mxfp4["format"], float16["format"]) == ("mxfp4", "float16")
    for other in (mxfp4, float16):
        assert other["energy_ratio"] == other["total"]["energy_pj"] / content["total"]["energy_pj"]
        assert other["area_ratio"] == other["total"]["area_um2"] / content["total"]["area_um2"]


def test_an_energy_that_is_not_stated_is_null_and_the_reason_is_given() -> None:
    on_chip = cost_report("m.onnx", _Fixed(*NODES), 2, engine(constants=()), technology(), [Phase("run", {}, 1)])
    content = on_chip.to_dict()
    assert content["total"]["sram_energy_pj"] is None
    assert set(content["absent"]) == {"vector", "buffer", "sram", "dram"}


def test_the_csv_has_a_line_for_each_node_of_each_phase() -> None:
    rows = list(csv.DictReader(io.StringIO(report().to_csv())))
    assert [(row["phase"], row["name"]) for row in rows[:3]] == [
        ("prefill", "/layers.0/<q>"),
        ("prefill", "/head"),
        ("prefill", "/softmax"),
    ]
    assert len(rows) == 6
    assert float(rows[0]["energy_pj"]) == report().phases[0].cost.nodes[0].energy_pj


class _Page(html.parser.HTMLParser):
    """Checks that tags close in order, and gathers what could come from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.rows += tag == "tr"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    content = to_html(report())
    page = _Page()
    page.feed(content)
    assert (page.open, page.outside) == ([], [])
    assert not re.search(r"https?:|@import|url\(", content)


def test_the_cells_of_a_node_stand_under_their_heads() -> None:
    table = to_html(report()).split('id="nodes0"', 1)[1].split("</tbody>")[0]
    heads = re.findall(r"<button>(.+?)</button>", table)
    first = table.split("<tbody>")[1].split("</tr>")[0]
    found = dict(zip(heads, re.findall(r"<td[^>]*>([^<]*)", first), strict=True))
    cost = report().phases[0].cost
    node = max(cost.nodes, key=lambda node: node.energy_pj)
    whole = total(cost).energy_pj
    assert found == {
        "node": html.escape(node.name),
        "energy": text.energy(node.energy_pj),
        "share": text.percent(node.energy_pj / whole),
        "time": text.time(node.latency_us),
        "bound": node.bound,
        "formats": text.formats(node.a_format, node.b_format),
        "MACs": text.count(node.macs),
        "use of array": text.percent(node.utilization),
        "DRAM": text.number_of(node.dram_bytes, "B"),
        "cycles": text.count(node.cycles),
        "op": node.op_type,
    }


def test_names_with_markup_are_text_on_the_page() -> None:
    content = to_html(report())
    assert "/layers.0/&lt;q&gt;" in content
    assert "<q>" not in content


def test_the_page_says_what_is_not_covered_and_where_figures_come_from() -> None:
    content = to_html(report())
    for part in ("there is no formula", "3 of 4 nodes", "assumed", "published", "measured", "Prefill", "Decode"):
        assert part in content


def test_a_long_model_shows_its_dearest_nodes_and_how_many_more_there_are() -> None:
    nodes = [linear(f"/q{index}") for index in range(MAXIMUM_ROWS + 7)]
    content = to_html(report(*nodes, formats=()))
    assert content.count("7 other nodes need less") == 2
    assert content.count("/q") >= MAXIMUM_ROWS


def test_a_page_of_a_model_that_stays_on_the_chip_has_no_roofline() -> None:
    on_chip = cost_report("m.onnx", _Fixed(*NODES), 2, engine(), technology(), [Phase("run", {}, 1)])
    assert "<svg" not in to_html(on_chip)
    assert "<svg" in to_html(report())


@pytest.mark.parametrize("top", [0, 1, 10])
def test_the_table_shows_the_dearest_nodes_and_the_rest_in_a_line(top: int) -> None:
    file = io.StringIO()
    show(report(), top, file)
    shown = file.getvalue()
    assert ("/layers.0/<q>" in shown) == (top > 1)
    assert ("other nodes" in shown) == (top < 3)
    for part in ("energy per token", "amxfp4_tagged", "not covered: 1 Odd", "coverage: 3 of 4 nodes (75.0%)"):
        assert part in shown
