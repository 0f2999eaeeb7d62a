"""``mxcompile compare --report``: a variant and a point for each format, and the figures that the command prints."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, assert_error

DIGITS = 1e-5
"""Pages round figures to six significant digits."""


def data(file: Path) -> dict[str, Any]:
    """What the script of a page reads."""
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', file.read_text("utf-8"))
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_the_page_has_every_format_with_the_figures_of_the_table(
    run: Run, exported_model_folder: Callable[[str], Path]
) -> None:
    model = exported_model_folder("llama") / "model.onnx"
    Path("text").write_text(" ".join(f"w{word}" for word in range(3, 60)), "utf-8")
    given = ("--data", "text", "--seq-len", 16, "--windows", 1, "--threads", 1, "--prompts", 0, "--rounds", 0)
    only = ("--include", "*layers.0/mlp/*", "--formats", "mxfp4,dint3", "--prefill", 8, "--decode", 8)
    result = run("compare", model, *given, *only, "--report", "page.html", "--json")
    assert result.exit_code == 0, result.output
    rows = {row["format"]: row for row in json.loads(result.stdout)["rows"]}
    page, text = data(Path("page.html")), Path("page.html").read_text("utf-8")
    points = {point["name"]: point for point in page["points"]}
    assert [*points] == ["original", "mxfp4", "dint3"]
    for name, row in zip(points, rows.values(), strict=True):
        assert points[name]["kind"] == ("float" if name == "original" else "format")
        for key, figure in (("bits", "bits_per_weight"), ("kl", "kl"), ("energy_pj", "prefill_energy_pj_per_token")):
            expected = None if row[figure] is None else pytest.approx(row[figure], rel=DIGITS)
            assert points[name][key] == expected
    assert points["dint3"]["energy_pj"] is None
    variants = {variant["name"]: variant for variant in page["variants"]}
    assert [*variants] == ["mxfp4", "dint3"]
    assert all(len(variant["histograms"]) == 2 * 3 for variant in variants.values())
    assert any("There is no estimate of energy" in note for note in variants["dint3"]["notes"])
    energies = variants["mxfp4"]["nodes"]["energy_pj"]
    cells = energies if isinstance(energies, list) else energies["cells"]
    total = sum(cell for cell in cells if cell is not None)
    assert total == pytest.approx(rows["mxfp4"]["prefill_energy_pj_per_token"], rel=DIGITS)
    assert "no unit multiplies int8 x dint3" in text
    assert f"{rows['mxfp4']['perplexity']:.4f}" in text


@pytest.mark.parametrize(
    ("name", "message"), [("page.txt", "a name that ends with .html"), ("old.html", "exists already")]
)
def test_a_page_that_cannot_be_written_is_told_before_the_work(name: str, message: str, run: Run) -> None:
    Path("old.html").write_text("mine", "utf-8")
    assert_error(run("compare", "missing.onnx", "--report", name), message)
    assert Path("old.html").read_text("utf-8") == "mine"
