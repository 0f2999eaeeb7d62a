"""What a reader can do on a report page, done in a browser."""

import dataclasses
import itertools

import browser
import numpy as np
import page_models
import pytest
from browser import HAS_BROWSER, Opened

from mxcompile.page.packing import DIGITS
from mxcompile.page.write import write_page

PAGE = page_models.page()
FIRST, SECOND = PAGE.variants
FIRST_PRODUCT = "/model/layers.0/self_attn/q_proj/MatMul"

# Plotly moves both ends of a bar to whole pixels, away from each other: less than a pixel each.
TWO_ENDS = 2.0


def kept(value: object) -> object:
    """A figure with the digits that a page keeps."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def cell(report: Opened, block: int, column: int) -> object:
    """The button of a product: blocks come after the row "before"."""
    return report.page.locator(f"#map tbody tr:nth-child({block + 2}) button").nth(column)


def focused(report: Opened) -> str:
    """How the focused button is called."""
    return str(report.page.evaluate("document.activeElement.getAttribute('aria-label')"))


def details(report: Opened) -> dict[str, str]:
    """What the panel says of the chosen node."""
    return dict(zip(report.texts("#details dt"), report.texts("#details dd"), strict=True))


def bars(report: Opened, plot: str, side: str) -> np.ndarray:
    """A side of the bars of a part of the histogram, in pixels: ``height``, or ``y`` of the upper end."""
    script = "(all, side) => all.map(each => each.getBBox()[side])"
    return np.array(report.page.locator(f"#histogram .{plot} .bars path").evaluate_all(script, side))


def rows(report: Opened) -> list[str]:
    """Names in the table of nodes."""
    return report.texts("#node-rows th")


if HAS_BROWSER:

    def test_page_complains_of_nothing_and_asks_for_nothing_but_itself(report: Opened) -> None:
        assert report.complaints == []
        assert report.dialogs == []
        assert [url for url in report.requests if not url.startswith(("data:", "blob:"))] == [report.page.url]

    def test_scripts_read_what_was_packed(report: Opened) -> None:
        read = report.page.evaluate("variants")
        for variant, unpacked in zip(PAGE.variants, read, strict=True):
            for index, (node, found) in enumerate(zip(variant.nodes, unpacked["nodes"], strict=True)):
                assert found == {key: kept(value) for key, value in dataclasses.asdict(node).items()} | {"index": index}
            for histogram, found in zip(variant.histograms, unpacked["histograms"], strict=True):
                expected = dataclasses.asdict(histogram) | {"sqnr_db": kept(histogram.sqnr_db)}
                assert found == {
                    key: list(value) if isinstance(value, tuple) else value for key, value in expected.items()
                }

    def test_map_has_a_row_for_each_block_and_a_column_for_each_product(report: Opened) -> None:
        assert report.texts("#map tbody th") == ["before", "0", "1", "2", "after"]
        short = [role.split("/")[1] for role in page_models.ORDER]
        assert report.texts("#map thead th") == ["block", *short, "other nodes"]
        labels = report.page.locator("#map tbody button").evaluate_all("all => all.map(each => each.ariaLabel)")
        products = [node for node in FIRST.nodes if node.product]
        others = sum(node.product is None for node in FIRST.nodes)
        counted = [int(label.split(": ")[1].split()[0]) for label in labels if "other node" in label]
        assert len(labels) - len(counted) == len(products)
        assert sum(counted) == others

    def test_colours_by_format_are_those_of_the_legend(report: Opened) -> None:
        chips = dict(zip(report.texts("#legend li"), report.styles("#legend .chip", "backgroundColor"), strict=True))
        assert set(chips) == {"Aamxfp4", "Bmxfp8_e4m3", "Cmxfp4 × int8", "flleft in float"}
        fills = report.styles("#map tr:nth-child(2) td button", "backgroundColor")
        assert fills[:9] == [chips["Aamxfp4"]] * 9
        assert report.texts("#map tr:nth-child(2) td button span")[0] == "A"
        assert report.styles("#map tbody tr:last-child button", "backgroundColor")[0] == chips["Bmxfp8_e4m3"]
        hatched = report.page.locator("#map button.hatched")
        assert hatched.count() == 1
        assert "excluded by --exclude" in hatched.get_attribute("aria-label")

    @pytest.mark.parametrize(
        ("mode", "write"),
        [
            ("sqnr_db", lambda node: f"{node.sqnr_db:.1f}"),
            ("energy_pj", lambda node: f"{float(f'{node.energy_pj / 1000:.2g}'):g}"),
        ],
    )
    def test_colours_by_figure_order_cells_and_print_the_figure(report: Opened, mode: str, write: object) -> None:
        before = report.styles("#map tbody td button", "backgroundColor")
        report.page.check(f"input[name=mode][value={mode}]")
        assert report.styles("#map tbody td button", "backgroundColor") != before
        block = [node for node in FIRST.nodes if node.block == 0 and node.product]
        assert report.texts("#map tbody tr:nth-child(2) button > span")[:9] == [write(node) for node in block]
        fills = report.styles("#map tbody tr:nth-child(2) button", "backgroundColor")[:9]
        lightness = [sum(map(int, fill[4:-1].split(","))) for fill in fills]
        worse = [-node.sqnr_db if mode == "sqnr_db" else node.energy_pj for node in block]
        ordered = [light for _, light in sorted(zip(worse, lightness, strict=True))]
        assert ordered == sorted(ordered)
        assert lightness[int(np.argmax(worse))] > lightness[int(np.argmin(worse))]

    def test_colours_by_divergence_print_thousandths_and_millionths(report: Opened) -> None:
        report.page.check("input[name=mode][value=kl]")
        texts = report.texts("#map tbody tr:nth-child(2) button > span")[:9]
        assert texts[0] == "740µ"
        assert texts[3] == "1m"
        assert "0.000739 nat" in report.texts("#legend li")[0]

    def test_scale_is_the_same_for_all_variants(report: Opened) -> None:
        report.page.check("input[name=mode][value=sqnr_db]")
        legend = report.texts("#legend li")
        fills = report.styles("#map tbody tr:nth-child(2) button", "backgroundColor")
        report.page.select_option("#variant", label=SECOND.name)
        assert report.texts("#legend li") == legend
        assert report.styles("#map tbody tr:nth-child(2) button", "backgroundColor") == fills

    def test_arrow_keys_move_the_focus_on_the_map(report: Opened) -> None:
        cell(report, 0, 0).focus()
        visited = []
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "End", "Home", "ArrowLeft", "ArrowDown", "ArrowDown"):
            report.page.keyboard.press(key)
            visited.append(focused(report).split(":")[0])
        q, k = "self_attn/q_proj", "self_attn/k_proj"
        assert visited == [
            *(f"block 0, {k}", f"block 1, {k}", f"block 1, {q}", "block 1", f"block 1, {q}", f"block 1, {q}"),
            *(f"block 2, {q}", "after the blocks, lm_head"),
        ]
        report.page.keyboard.press("Control+Home")
        assert focused(report) == "before the blocks: 1 other node"
        assert report.page.locator("#map button[tabindex='0']").count() == 1

    def test_enter_opens_the_node_under_the_focus(report: Opened) -> None:
        cell(report, 0, 0).focus()
        for key in ("ArrowDown", "ArrowRight", "Enter"):
            report.page.keyboard.press(key)
        node = next(node for node in FIRST.nodes if node.layer == "model/layers.1/self_attn/k_proj")
        assert report.texts("#details h3") == [node.name]
        assert details(report) == {
            "operator": "MatMul",
            "layer": node.layer,
            "block": "1",
            "role": node.role,
            "product": "linear layer",
            "weights, keys or values in": "amxfp4",
            "other operand in": "amxfp4",
            "length of the reduction, k": "64",
            "output features, n": "32",
            "stored bits a weight": "4.5",
            "SQNR of the result": f"{node.sqnr_db:.1f} dB",
            "KL divergence, this product alone": f"{node.kl:.3g} nat",
            "MACs for a token": "2.05 k",
            "energy for a token": f"{node.energy_pj / 1000:.3g} nJ",
        }
        assert report.page.locator("#map [aria-selected=true] button").get_attribute("aria-label").startswith("block 1")
        assert report.page.locator("#node-rows [aria-current=true] th").text_content() == node.name

    def test_product_left_in_float_says_why_and_has_no_histogram(report: Opened) -> None:
        report.page.locator("#map button.hatched").click()
        assert details(report)["left in float, for"] == "excluded by --exclude"
        assert not report.page.locator("#histogram").is_visible()
        assert report.page.locator("#no-histograms").text_content() == "This product is left in float."

    def test_other_nodes_of_a_block_are_listed_and_lead_to_their_figures(report: Opened) -> None:
        report.page.locator("#map tbody tr:nth-child(3) td:last-child button").click()
        listed = report.texts("#details li button > span:nth-child(2)")
        assert listed == [node.name for node in FIRST.nodes if node.block == 1 and not node.product]
        report.page.locator("#details li button").nth(1).click()
        assert report.texts("#details h3") == [listed[1]]
        assert report.page.evaluate("document.activeElement.id") == "details"

    def test_bars_of_the_histogram_are_its_counts(report: Opened) -> None:
        histogram = FIRST.histograms[0]
        for plot, counts in (("xy", histogram.counts), ("xy2", histogram.level_counts)):
            heights = bars(report, plot, "height")
            assert len(heights) == len(counts)
            assert np.abs(heights - np.array(counts) / max(counts) * heights.max()).max() < TWO_ENDS
        drawn = report.page.evaluate("document.getElementById('histogram').data.map(trace => [...trace.y])")
        assert drawn == [list(histogram.counts), list(histogram.level_counts)]

    def test_logarithmic_counts_show_single_elements(report: Opened) -> None:
        counts = np.array(FIRST.histograms[0].counts)
        report.redrawn("histogram", lambda: report.page.check("#histogram-log"))
        tops, logs = bars(report, "xy", "y")[counts > 0], np.log(counts[counts > 0])
        slope = (tops[logs == 0][0] - tops.min()) / logs.max()
        assert np.abs(tops - (tops.min() + slope * (logs.max() - logs))).max() < TWO_ENDS
        # The ground is half an element.
        assert slope * np.log(2) > TWO_ENDS

    def test_arrow_keys_change_the_operand(report: Opened) -> None:
        report.page.locator("#tab-weights").focus()
        report.redrawn("histogram", lambda: report.page.keyboard.press("ArrowRight"))
        assert report.page.evaluate("document.activeElement.id") == "tab-activations"
        assert report.page.locator("#operands [aria-selected=true]").text_content() == "activations"
        assert len(bars(report, "xy", "height")) == len(FIRST.histograms[1].counts)
        assert report.page.locator("#histogram-text").text_content().startswith("4,000 activations in amxfp4")

    def test_attention_products_show_their_own_operands(report: Opened) -> None:
        report.redrawn("histogram", lambda: cell(report, 0, 3).click())
        assert report.texts("#operands button") == ["queries", "keys"]
        report.redrawn("histogram", lambda: cell(report, 0, 4).click())
        assert report.texts("#operands button") == ["probabilities", "values"]

    def test_numbers_of_the_histogram_stand_in_a_table(report: Opened) -> None:
        histogram = FIRST.histograms[0]
        report.page.locator("#operand summary").click()
        first, second = (report.texts(f"#histogram-numbers table:nth-child({at}) tbody td") for at in (1, 2))
        assert first == [str(count) for count in histogram.counts]
        assert second == [str(count) for count in histogram.level_counts]
        assert report.texts("#histogram-numbers tbody th")[:2] == ["-6 to -5.875", "-5.875 to -5.75"]

    def test_heads_sort_the_table_up_and_down(report: Opened) -> None:
        head = report.page.locator("#node-heads th", has_text="SQNR")
        products = [node for node in FIRST.nodes if node.product]
        known = sorted((node for node in products if node.sqnr_db is not None), key=lambda node: node.sqnr_db)
        unknown = [node.name for node in products if node.sqnr_db is None]
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert rows(report)[0] in {FIRST_PRODUCT, page_models.HOSTILE}
        assert rows(report)[-1:] == unknown
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert rows(report)[0] == known[0].name
        assert rows(report)[-1:] == unknown
        head.locator("button").click()
        assert rows(report) == [node.name for node in products]
        report.page.locator("#node-heads button", has_text="node").click()
        assert rows(report) == sorted(rows(report), key=str.lower)
        assert head.get_attribute("aria-sort") is None

    def test_table_is_filtered_by_text_and_by_kind(report: Opened) -> None:
        products = [node.name for node in FIRST.nodes if node.product]
        assert len(rows(report)) == len(products)
        report.page.fill("#find", "DOWN_proj")
        assert rows(report) == [name for name in products if "down_proj" in name]
        report.page.select_option("#keep", "skipped")
        assert rows(report) == ["/model/layers.2/mlp/down_proj/MatMul"]
        report.page.fill("#find", "")
        report.page.select_option("#keep", "all")
        assert rows(report) == [node.name for node in FIRST.nodes]
        assert (
            report.page.locator("#found").text_content() == f"{len(FIRST.nodes)} of {len(FIRST.nodes)} nodes of amxfp4"
        )
        report.page.fill("#find", "no such node")
        assert rows(report) == []

    def test_row_of_the_table_opens_its_node(report: Opened) -> None:
        name = "/model/layers.2/self_attn/v_proj/MatMul"
        report.page.locator("#node-rows tr", has_text=name).locator("td").nth(1).click()
        assert report.texts("#details h3") == [name]
        report.page.locator("#node-rows button").nth(1).press("Enter")
        assert report.texts("#details h3") == [rows(report)[1]]
        assert report.page.evaluate("document.activeElement.id") == "details"

    def test_variant_changes_map_details_values_and_table(report: Opened) -> None:
        report.redrawn("histogram", lambda: report.page.select_option("#variant", label=SECOND.name))
        assert report.texts("#map tbody tr:nth-child(2) button span")[0] == "C"
        assert details(report)["other operand in"] == "int8"
        assert "in mxfp4" in report.page.locator("#histogram-text").text_content()
        assert report.page.locator("#found").text_content().endswith("nodes of mxfp4 with int8")
        assert "mxfp4 × int8" in report.texts("#node-rows tr:first-child td")

    def test_axes_of_quality_against_cost_can_be_chosen(report: Opened) -> None:
        marks, text = "#pareto-chart .points path", report.page.locator("#pareto-text")
        measured = [point for point in PAGE.points if point.perplexity_increase is not None]
        assert report.page.locator(marks).count() == len(measured)
        assert text.text_content() == (
            "Not beaten: mxfp4, amxfp4, 5.5 bits, written, mxfp8_e4m3, float32. 2 of 8 cannot be drawn."
        )
        report.redrawn("pareto-chart", lambda: report.page.select_option("#pareto-y", "kl"))
        assert report.page.locator(marks).count() == len(PAGE.points)
        assert len({path.split(",", 1)[1][:9] for path in shapes(report)}) >= 4
        report.redrawn("pareto-chart", lambda: report.page.select_option("#pareto-x", "energy_pj"))
        assert "energy for a token" in report.page.locator("#pareto-chart .xtitle").text_content()
        report.redrawn("pareto-chart", lambda: report.page.check("#pareto-log"))
        assert report.page.locator(marks).count() == len(PAGE.points) - 1
        assert text.text_content().endswith("1 of 8 cannot be drawn.")

    def shapes(report: Opened) -> list[str]:
        """Outlines of the marks."""
        return report.page.locator("#pareto-chart .points path").evaluate_all(
            "all => all.map(e => e.getAttribute('d'))"
        )

    def test_names_are_text_whatever_they_contain(report: Opened) -> None:
        report.page.locator("#map tbody tr:last-child button").first.click()
        assert report.texts("#details h3") == [page_models.HOSTILE]
        assert page_models.HOSTILE in rows(report)
        assert report.page.locator("main script, #details script, #node-rows script").count() == 0
        assert report.dialogs == []
        assert report.texts("#results tbody th")[1] == "hidden <states>"

    def test_tabulator_reaches_every_control_and_leaves_the_page(report: Opened) -> None:
        report.page.locator("nav a").first.focus()
        script = """() => {
            const {activeElement: now} = document;
            return now === document.body ? null : now.id || now.name || now.closest("[id]")?.id || now.tagName;
        }"""
        reached: list[str] = []
        for _ in range(200):
            report.page.keyboard.press("Tab")
            name = report.page.evaluate(script)
            if name is None:
                break
            reached.append(name)
        order = [name for name, _ in itertools.groupby(reached)]
        wanted = ("pareto-x", "pareto-y", "pareto-log", "variant", "mode", "map", "tab-weights", "histogram-log")
        places = [order.index(name) for name in (*wanted, "find", "keep", "node-heads", "node-rows")]
        assert places == sorted(places)
        assert reached.count("map") == 1
        assert reached.count("node-rows") == len(rows(report))

    def test_large_graph_shows_some_hundred_nodes_at_a_time(chromium: browser.Browser, tmp_path: object) -> None:
        large = page_models.variant("amxfp4", "amxfp4", "amxfp4", blocks=22, others=20)
        file = tmp_path / "large.html"
        write_page(dataclasses.replace(PAGE, variants=(dataclasses.replace(large, histograms=()),), points=()), file)
        with browser.opened(chromium, file) as opened:
            assert not opened.page.locator("#variant").is_visible()
            opened.page.select_option("#keep", "all")
            assert len(rows(opened)) == 500
            opened.page.locator("#more").click()
            assert len(rows(opened)) == len(large.nodes)
            assert not opened.page.locator("#more").is_visible()
            assert opened.complaints == []
