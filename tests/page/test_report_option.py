"""``--report``: the page says what the command prints, and what it was measured with."""

import html
import json
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import text_models
from command_line import Run, assert_error

from mxcompile.compiler import compile_model
from mxcompile.cost.report import report_model
from mxcompile.evaluation import EvalOptions
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.metrics import Figures, Pair, Spread
from mxcompile.evaluation.report import DataReport, EvalReport
from mxcompile.evaluation.search import SearchOptions
from mxcompile.evaluation.search_report import Assigned, FrontPoint, SearchReport
from mxcompile.evaluation.state import model_digest
from mxcompile.onnx_file import read_model
from mxcompile.page.content import Variant
from mxcompile.page.from_eval import evaluation_page
from mxcompile.page.from_search import search_page
from mxcompile.runtime import library_info, onnxruntime_version

pytest_plugins = ("evaluation.demo_models",)

TEXT = str(Path(sysconfig.get_path("stdlib"), "dataclasses.py"))
DATA = ("--data", TEXT, "--seq-len", "32", "--threads", "1")
LAYERS = "*layers.0/self_attn/*"
DIGITS = 1e-3
"""Pages round to four significant digits."""


class Read:
    """A written page: its text, and the data for its script."""

    def __init__(self, file: str = "page.html") -> None:
        content = Path(file).read_text("utf-8")
        found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', content, re.DOTALL)
        assert found is not None
        self.data: dict[str, Any] = json.loads(found[1])
        body = re.sub(r"<(script|style).*?</\1>", " ", content, flags=re.DOTALL)
        self.text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
        (self.variant,) = self.data["variants"]
        self.points = {point["name"]: point for point in self.data["points"]}

    def column(self, key: str) -> dict[int, Any]:
        """What nodes have in a column, by their index."""
        column = self.variant["nodes"][key]
        pairs = enumerate(column) if isinstance(column, list) else zip(column["at"], column["cells"], strict=True)
        return {index: cell for index, cell in pairs if cell is not None}

    def by_layer(self, key: str) -> dict[str, Any]:
        """The same by the layer of the node."""
        layers = self.column("layer")
        return {self.data["strings"][layers[index]]: cell for index, cell in self.column(key).items()}


@pytest.fixture(scope="module")
def compiled(plain_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some layers of the demo model in amxfp4."""
    file = tmp_path_factory.mktemp("report") / "demo.onnx"
    compile_model(plain_demo, output=file, format="amxfp4", include=[LAYERS])
    return file


def test_the_page_of_an_evaluation(run: Run, compiled: Path, plain_demo: Path) -> None:
    arguments = ("eval", compiled, "--reference", plain_demo, *DATA, "--windows", 2, "--prompts", 1, "--new-tokens", 4)
    result = run(*arguments, "--json", "--report", "page.html")
    assert result.exit_code == 0, result.output
    printed, page = json.loads(result.stdout), Read()
    pair = printed["perplexity"]
    assert f"{pair['reference']:.4f}" in page.text
    assert f"{pair['quantized']:.4f}" in page.text
    for fact in (TEXT, printed["data"]["sha256"], model_digest(str(compiled)), model_digest(str(plain_demo))):
        assert fact in page.text
    assert f"onnxruntime {onnxruntime_version()}" in page.text
    assert f"kernels {library_info().isa}" in page.text
    assert "6 of 37 matrix products are quantized" in page.text
    assert "no --include pattern matches it" in page.text
    assert set(page.points) == {"original", "amxfp4"}
    original, quantized = page.points["original"], page.points["amxfp4"]
    assert (original["kind"], original["bits"], original["perplexity_increase"], original["kl"]) == ("float", 32, 0, 0)
    assert quantized["kl"] == pytest.approx(printed["kl"]["mean"], rel=DIGITS)
    assert quantized["perplexity_increase"] == pytest.approx(printed["perplexity_increase"], rel=DIGITS)
    for point, file in ((original, plain_demo), (quantized, compiled)):
        cost = report_model("", read_model(file, compiled=True), prefill=32).phases[0]
        assert point["energy_pj"] == pytest.approx(cost.total.energy_pj / 32, rel=DIGITS)
    assert quantized["bits"] < 32
    assert len(page.by_layer("sqnr_db")) == 6
    assert len(page.variant["histograms"]) == 12
    first = Path("page.html").read_bytes()
    assert_error(run(*arguments, "--report", "page.html"), "page.html: exists already", "--force")
    assert run(*arguments, "--report", "page.html", "--force").exit_code == 0
    assert Path("page.html").read_bytes() == first


def test_a_page_is_written_where_a_threshold_is_not_kept(run: Run) -> None:
    Path("text").write_text(" ".join(text_models.WORDS * 5), "utf-8")
    blurred = text_models.counting_decoder()
    (table,) = (each for each in blurred.graph.initializer if each.name == "table")
    table.raw_data = (np.frombuffer(table.raw_data, np.float32) * np.float32(0.9)).tobytes()
    text_models.save(blurred, Path("blurred.onnx"))
    options = ("--data", "text", "--seq-len", "8", "--max-kl", "0", "--no-library", "--report", "page.html")
    result = run("eval", "blurred.onnx", "--reference", "counting.onnx", *options)
    assert result.exit_code == 1
    page = Read()
    assert "It is not near enough to its original: --max-kl" in page.text
    assert "kernels none: the bodies of the operators" in page.text
    assert any("no product of the model is quantized" in note for note in page.variant["notes"])
    assert any("There is no estimate of energy" in note for note in page.variant["notes"])


def test_the_page_of_embeddings(run: Run) -> None:
    Path("text").write_text(" ".join(text_models.WORDS * 5), "utf-8")
    options = ("--data", "text", "--seq-len", "8", "--no-library", "--report", "page.html")
    result = run("eval", "encoder.onnx", "--reference", "encoder.onnx", *options)
    assert result.exit_code == 0, result.output
    page = Read()
    assert "cosine" in page.text
    assert "perplexity" not in page.text
    assert page.points["original"]["kl"] is None


def test_the_page_of_a_ranking(run: Run, plain_demo: Path) -> None:
    options = ("--include", LAYERS, *DATA, "--windows", 1, "--max-ppl-increase", "0.1%", "--report", "page.html")
    result = run("sensitivity", plain_demo, "--format", "dint4", *options, "--json")
    assert result.exit_code == 0, result.output
    printed, page = json.loads(result.stdout), Read()
    alone = {product["layer"]: product["alone"]["kl"] for product in printed["products"]}
    assert page.by_layer("kl") == pytest.approx(alone, rel=DIGITS)
    own = {product["layer"]: product["sqnr_db"] for product in printed["products"]}
    assert page.by_layer("sqnr_db") == pytest.approx(own, rel=DIGITS)
    formats = page.by_layer("weights")
    assert {page.data["strings"][index] for index in formats.values()} == {"dint4", "int8"}
    assert len(page.by_layer("energy_pj")) > len(alone)
    assert len(page.variant["histograms"]) == 2 * len(alone)
    for layer in printed["selection"]["excluded"]:
        assert f"--exclude {layer}" in page.text
    selection, everything = page.points["selection"], page.points["dint4/int8"]
    assert selection["kl"] == pytest.approx(printed["selection"]["change"]["kl"], rel=DIGITS)
    assert everything["kl"] == pytest.approx(printed["everything"]["kl"], rel=DIGITS)
    assert everything["bits"] < selection["bits"] < page.points["original"]["bits"]


def test_the_page_of_a_classifier(run: Run, exported_model_folder: Callable[[str], Path]) -> None:
    np.savez("images.npz", pixel_values=np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    file = exported_model_folder("vit") / "model.onnx"
    options = ("--data", "images.npz", "--threads", 1, "--include", "*layer.0/*", "--report", "page.html")
    result = run("sensitivity", file, *options, "--json")
    assert result.exit_code == 0, result.output
    page, printed = Read(), json.loads(result.stdout)
    assert len(page.by_layer("kl")) == len(printed["products"])
    assert page.points["amxfp4"]["perplexity_increase"] is None
    assert page.points["amxfp4"]["kl"] == pytest.approx(printed["everything"]["kl"], rel=DIGITS)
    assert page.column("macs")


def test_the_page_of_a_search(run: Run, plain_demo: Path) -> None:
    options = ("--include", LAYERS, *DATA, "--windows", 1, "--max-ppl-increase", "3%")
    formats = ("--formats", "mxfp8_e4m3", "-o", "out.onnx", "--report", "page.html")
    result = run("search", plain_demo, *options, *formats, "--json")
    assert result.exit_code == 0, result.output
    printed, page = json.loads(result.stdout), Read()
    chosen = page.points["chosen"]
    assert chosen["bits"] == pytest.approx(printed["cost"], rel=DIGITS)
    assert chosen["perplexity_increase"] == pytest.approx(printed["measured"]["perplexity_increase"], rel=DIGITS)
    (uniform,) = printed["uniform"]
    assert page.points["mxfp8_e4m3"]["bits"] == uniform["cost"] == 8.25
    assert page.points["mxfp8_e4m3"]["kind"] == "format"
    assert len(page.points) == len(printed["front"]) + 2
    assert page.points["original"]["bits"] == pytest.approx(printed["front"][0]["cost"], rel=DIGITS)
    kl = {each["layer"]: each["kl"] for each in printed["products"] if each["format"] != "none"}
    assert page.by_layer("kl") == pytest.approx(kl, rel=DIGITS)
    assert model_digest("out.onnx") in page.text


def test_costs_of_a_search_for_the_least_energy_are_energies(compiled: Path) -> None:
    figures = Figures(7, Pair(4.0, 4.04), Spread(0.01, 0.01, 0.02, 0.03), 0.9, 0.99, 0.9, 30.0)
    front = (FrontPoint(900.0, 0.0, {"mxfp4": 0, "none": 1}), FrontPoint(500.0, 0.01, {"mxfp4": 1, "none": 0}))
    report = SearchReport(
        version="1",
        source="model",
        output=str(compiled),
        objective="energy",
        unit="pJ a token",
        max_ppl_increase=0.02,
        data=DataReport(("text",), (), "0", 1, 32),
        products=(Assigned("/layer", "mxfp4", "mxfp4", "mxfp4", 0.01, 500.0),),
        cost=500.0,
        predicted_increase=0.01,
        measured=figures,
        evaluations=1,
        front=front,
        uniform=(FrontPoint(500.0, 0.02, {"mxfp4": 1, "none": 0}),),
        seconds=1.0,
    )
    samples = Samples({"input_ids": np.zeros((1, 32), np.int64)}, ("text",), seq_len=32)
    wanted = SearchOptions(("mxfp4",), 0.02, "energy")
    page = search_page(report, wanted, EvalOptions(data=("text",)), samples, Variant("mixture", ()))
    costs = [(point.name, point.kind, point.bits, point.energy_pj) for point in page.points]
    assert costs == [
        ("mxfp4", "format", None, 500.0),
        ("original", "float", None, 900.0),
        ("mixture 2", "mixture", None, 500.0),
        ("chosen", "chosen", None, 500.0),
    ]
    assert page.settings["objective"] == "least pJ a token"


def test_an_evaluation_of_tasks_alone_has_their_results(compiled: Path) -> None:
    tasks = {"lines": {"acc": Pair(0.5, 0.25)}}
    report = EvalReport("1", str(compiled), "a/hub-id", "decoder", None, None, None, tasks, (), 1.0)
    page = evaluation_page(report, EvalOptions(tasks=("lines",), limit=4), None, Variant("amxfp4", ()), None, {})
    assert page.summary[0].rows == (("lines", "acc", "0.5000", "0.2500"),)
    assert (page.points, page.headline) == ((), {})
    assert (page.settings["tasks"], page.settings["documents of a task"]) == ("lines", "4")
    assert page.provenance["reference"] == "a/hub-id"
    assert "SHA-256 of the reference" not in page.provenance
    assert "data" not in page.provenance


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "nothing.onnx", "--reference", "x"),
        ("sensitivity", "x"),
        ("search", "x", "-o", "o", "--max-ppl-increase", "1"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("page.txt", "page.txt: a report is one HTML file"),
        ("old.html", "old.html: exists already; add --force"),
        ("none/page.html", "there is no folder"),
    ],
)
def test_where_no_page_can_be_written_nothing_is_run(
    command: tuple[str, ...], file: str, message: str, run: Run
) -> None:
    Path("old.html").write_text("old", "utf-8")
    assert_error(run(*command, "--report", file), message)
    assert Path("old.html").read_text("utf-8") == "old"
