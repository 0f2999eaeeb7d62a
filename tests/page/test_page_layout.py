"""Where nodes lie on the map of a report page: made-up graphs, and one that was compiled."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browser
import page_models
from browser import HAS_BROWSER, Opened

from mxcompile.compiler import compile_model
from mxcompile.page.content import Node
from mxcompile.page.variant import describe_variant
from mxcompile.page.write import write_page


def graph(*products: tuple[int | None, str]) -> list[dict[str, Any]]:
    """Nodes as the scripts have them: products by block and role, and an addition behind each."""
    nodes = []
    for block, role in products:
        name = f"{block}/{role}"
        nodes.append(Node(name, "MatMul", name, block, role, product="linear", weights="mxfp4"))
        nodes.append(Node(f"{name}/Add", "Add", name, block, "Add"))
    return [dataclasses.asdict(node) | {"index": index} for index, node in enumerate(nodes)]


def lay_out(report: Opened, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The map: its columns, and of each row the label, the products by column, and the number of other nodes."""
    layout = report.page.evaluate("nodes => layOut(nodes)", nodes)
    rows = [
        (row["label"], {cell["column"]: cell["node"]["role"] for cell in row["cells"]}, len(row["others"]))
        for row in layout["rows"]
    ]
    return {"roles": layout["roles"], "names": layout["names"], "rows": rows}


if HAS_BROWSER:

    def test_product_that_some_blocks_lack_has_a_column_of_its_own(report: Opened) -> None:
        found = lay_out(report, graph((0, "q"), (0, "mlp"), (1, "q"), (1, "experts/0"), (1, "experts/1"), (1, "mlp")))
        assert found["roles"] == ["q", "experts/0", "experts/1", "mlp"]
        assert found["rows"] == [
            ("0", {0: "q", 3: "mlp"}, 2),
            ("1", {0: "q", 1: "experts/0", 2: "experts/1", 3: "mlp"}, 4),
        ]

    def test_role_that_comes_twice_in_a_block_has_two_columns(report: Opened) -> None:
        found = lay_out(report, graph((0, "q"), (0, "q"), (1, "q")))
        assert found["roles"] == ["q", "q #2"]
        assert found["rows"] == [("0", {0: "q", 1: "q"}, 2), ("1", {0: "q"}, 1)]

    def test_columns_are_named_by_the_end_of_their_path_that_no_other_has(report: Opened) -> None:
        found = lay_out(report, graph((0, "text/attn/q"), (0, "vision/attn/q"), (0, "text/mlp/up"), (0, "up")))
        assert found["names"] == ["text/attn/q", "vision/attn/q", "mlp/up", "up"]

    def test_nodes_outside_of_blocks_stand_before_between_and_after_them(report: Opened) -> None:
        found = lay_out(report, graph((None, "embed"), (0, "q"), (None, "angles"), (1, "q"), (None, "head")))
        assert found["rows"] == [
            ("before", {0: "embed"}, 1),
            ("between", {0: "angles"}, 1),
            ("0", {0: "q"}, 1),
            ("1", {0: "q"}, 1),
            ("after", {0: "head"}, 1),
        ]

    def test_graph_without_blocks_is_laid_out_row_by_row(report: Opened) -> None:
        found = lay_out(report, graph(*((None, f"fc{at}") for at in range(5))))
        assert found["rows"] == [
            ("all", {0: "fc0", 2: "fc1", 4: "fc2"}, 5),
            ("", {0: "fc3", 2: "fc4"}, 0),
        ]

    def test_compiled_model_is_on_the_map_node_by_node(
        chromium: browser.Browser, exported_model_folder: Callable[[str], Path], tmp_path: Path
    ) -> None:
        original = exported_model_folder("llama") / "model.onnx"
        compile_model(original, format="mxfp4", output=tmp_path / "out.onnx")
        variant = describe_variant("mxfp4", tmp_path / "out.onnx", original, None)
        write_page(dataclasses.replace(page_models.page(), variants=(variant,), points=()), tmp_path / "report.html")
        with browser.opened(chromium, tmp_path / "report.html") as opened:
            placed = opened.page.evaluate(
                "mapRows.flat().flatMap(cell => cell.node ? [cell.node.name] : cell.row.others.map(node => node.name))"
            )
            assert sorted(placed) == sorted(node.name for node in variant.nodes)
            assert "No data was read" in opened.page.locator("#notes").text_content()
            opened.wait_for_chart("histogram")
            weights = next(each for each in variant.histograms if each.operand == "weights")
            words = f"{weights.elements:,} weights in mxfp4, as multiples of their scale"
            assert opened.page.locator("#histogram-text").text_content().startswith(words)
            assert opened.complaints == []
