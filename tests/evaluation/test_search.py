"""Mixed precision: the bound is kept by what is written, costs are those of the formats, and the command."""

import collections
import dataclasses
import json
import math
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command_line import Run, assert_error
from cost_models import technology_file

from mxcompile.cli import CommandGroup
from mxcompile.commands.search import search_command
from mxcompile.compiler import compile_model
from mxcompile.errors import ConfigError, FormatError, MxCompileError
from mxcompile.evaluation import EvalOptions, evaluate
from mxcompile.evaluation.search import SearchOptions, search
from mxcompile.evaluation.search_costs import energies, weight_bits
from mxcompile.evaluation.search_report import SearchReport
from mxcompile.evaluation.switches import Switch

pytest_plugins = ("demo_models",)

TEXT = Path(sysconfig.get_path("stdlib"), "dataclasses.py")
LAYERS = "*layers.[01]/*"
FORMATS = ("mxfp4", "mxfp8_e4m3")
BOUND = 0.01

SUMS = 1e-12
"""Relative difference of figures from the same logits, summed in float64 in another order."""


def options(**more: Any) -> EvalOptions:
    settings = {"data": (str(TEXT),), "seq_len": 96, "windows": 2, "prompts": 0, "threads": 1}
    return EvalOptions(**{**settings, **more})


@dataclasses.dataclass(frozen=True)
class Found:
    report: SearchReport
    output: Path


@pytest.fixture(scope="module")
def found(plain_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    output = tmp_path_factory.mktemp("search") / "out.onnx"
    wanted = SearchOptions(FORMATS, BOUND, include=(LAYERS,))
    return Found(search(str(plain_demo), wanted, str(output), options()), output)


def test_what_is_written_keeps_the_bound(plain_demo: Path, found: Found) -> None:
    figures = evaluate(str(found.output), str(plain_demo), options()).figures
    assert figures is not None
    assert figures.perplexity_increase is not None
    assert figures.perplexity_increase <= BOUND
    assert found.report.measured.perplexity_increase == pytest.approx(figures.perplexity_increase, rel=1e-9)


def test_what_is_written_has_the_formats_that_the_report_names(found: Found) -> None:
    compiled = json.loads(found.output.with_suffix(".report.json").read_text("utf-8"))["layers"]
    written = {layer["layer"]: (layer["weights"], layer["activations"]) for layer in compiled}
    report = found.report
    assert len(report.products) == 2 * 9
    for product in report.products:
        pair = (None, None) if product.format == "none" else (product.weights, product.activations)
        assert written[product.layer] == pair
    assert len({product.format for product in report.products}) > 1
    others = [layer for layer in compiled if layer["layer"] not in {product.layer for product in report.products}]
    assert all(layer["weights"] is None for layer in others)


def test_the_cost_is_that_of_the_products_and_no_more_than_the_better_format_for_all(found: Found) -> None:
    report = found.report
    assert report.cost == pytest.approx(math.fsum(product.cost for product in report.products), rel=SUMS)
    assert report.predicted_increase <= BOUND * (1 + 1e-5)  # the solver's tolerance
    assert report.predicted_increase >= math.expm1(math.fsum(product.kl for product in report.products)) * (1 - SUMS)
    cheap, good = report.uniform
    assert (cheap.cost, good.cost) == (pytest.approx(4.25), pytest.approx(8.25))
    assert cheap.cost < report.cost
    assert cheap.perplexity_increase > BOUND


def test_the_front_leads_from_float_to_the_cheapest_format(found: Found) -> None:
    points = found.report.front
    assert points[0].perplexity_increase == 0
    assert points[0].cost == 32
    assert points[-1].cost == pytest.approx(4.25)
    assert all(sum(point.counts.values()) == len(found.report.products) for point in points)
    costs, increases = ([getattr(point, name) for point in points] for name in ("cost", "perplexity_increase"))
    assert costs == sorted(costs, reverse=True)
    assert increases == sorted(increases)


def test_bits_are_those_of_the_formats_and_of_the_weights() -> None:
    def switches(weights: str) -> tuple[Switch, ...]:
        return (
            Switch("/a", weights, weights, None, 300),
            Switch("/b", weights, weights, None, 100),
            Switch("/c/qk", weights, weights, "qk", 0),
        )

    found = weight_bits([switches("mxfp4"), switches("amxfp4"), switches("mxfp8_e4m3")])
    expected = np.array([[0.75], [0.25], [0]]) * np.array([[4.25, 4.5, 8.25, 32]])
    assert found == pytest.approx(expected)


def test_energies_are_those_of_the_cost_report(exported_model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    from mxcompile.cost.report import report_model
    from mxcompile.onnx_file import read_model

    plain, technology = exported_model_folder("llama") / "model.onnx", str(technology_file(tmp_path))
    products = [
        Switch(f"/model/layers.0/{name}", "mxfp4", "mxfp4", None, 1) for name in ("mlp/up_proj", "self_attn/qk")
    ]
    given = {"engine": "edge-npu", "technology": technology}
    found = energies(plain, [("mxfp4", {}), ("amxfp4", {"attention": False})], products, 32, **given)
    compile_model(plain, format="mxfp4", output=tmp_path / "out.onnx", kv_cache="float")
    sums = [collections.Counter[str]() for _ in range(2)]
    for model, energy in zip((read_model(tmp_path / "out.onnx", compiled=True), read_model(plain)), sums, strict=True):
        for node in report_model("", model, prefill=32, **given).phases[0].cost.nodes:
            energy[node.name] += node.energy_pj / 32
    up = "/model/layers.0/mlp/up_proj/MatMul"
    assert found[0, 0] == pytest.approx(sums[0][up])
    assert found[0, 2] == pytest.approx(sums[1][up])
    # Keys are quantized beside the product; that belongs to it.
    assert found[1, 0] > sums[0]["/model/layers.0/self_attn/MatMul"] > 0


def test_energy_is_an_objective(plain_demo: Path, tmp_path: Path) -> None:
    wanted = SearchOptions(
        ("mxfp4", "amxfp4"),
        0.03,
        objective="energy",
        include=("*layers.0/mlp/*",),
        attention=False,
        technology=str(technology_file(tmp_path)),
    )
    report = search(str(plain_demo), wanted, str(tmp_path / "out.onnx"), options(windows=1))
    assert report.unit == "pJ a token"
    assert report.measured.perplexity_increase is not None
    assert report.measured.perplexity_increase <= 0.03
    assert report.cost < report.front[0].cost


# Errors and the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def command(run: Run) -> Run:
    """The command, in a folder with small models."""
    group = CommandGroup("mxcompile", commands={"search": search_command})
    return lambda *arguments: CliRunner().invoke(group, ["search", *map(str, arguments)])


def test_the_command_prints_the_front_and_draws_it(plain_demo: Path, command: Run) -> None:
    given = ("--data", TEXT, "--seq-len", 96, "--windows", 1, "--threads", 1, "--formats", "mxfp4, mxfp8_e4m3")
    only = ("--include", "*layers.0/mlp/*", "--max-ppl-increase", "1%", "-o", "out.onnx")
    result = command(plain_demo, *given, *only, "--plot", "front.png")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "bits a weight ppl mxfp4 mxfp8_e4m3 none" in text
    assert "32 +0.00% - - 3 predicted" in text
    assert "chosen: " in text
    assert "allowed +1.00%)" in text
    assert Path("front.png").read_bytes().startswith(b"\x89PNG")
    again = command(plain_demo, *given, *only, "--force", "--json")
    content = json.loads(again.stdout)
    assert content["measured"]["perplexity_increase"] <= 0.01
    assert len(content["products"]) == 3


def test_a_bound_that_no_mixture_keeps_is_an_error_and_writes_nothing(plain_demo: Path, tmp_path: Path) -> None:
    wanted = SearchOptions(("mxfp4",), 0.0, include=("*layers.0/mlp/*",))
    with pytest.raises(MxCompileError, match=r"no mixture of mxfp4 keeps --max-ppl-increase 0: everything must stay"):
        search(str(plain_demo), wanted, str(tmp_path / "out.onnx"), options(windows=1))
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decoder.onnx", "--formats", "mxfp4,mxfp4"], "give different formats"),
        (["decoder.onnx", "--formats", ","], "give different formats"),
        (["decoder.onnx", "--formats", "none"], "float is always a candidate"),
        (["decoder.onnx", "--formats", "fp3"], "fp3"),
        (["decoder.onnx", "--plot", "front.txt"], "front.txt: is no .png, .svg, .pdf file"),
        (["decoder.onnx", "--plot", "nowhere/front.png"], "there is no folder"),
        (["counting.onnx"], "nothing to quantize"),
        (["decoder.onnx"], "which has no perplexity; search needs a decoder"),
        (["missing.onnx"], "missing.onnx"),
    ],
)
def test_a_mistake_is_one_line_that_says_what(arguments: list[str], message: str, command: Run) -> None:
    assert_error(command(*arguments, "--max-ppl-increase", "1%", "-o", "out.onnx"), message)
    assert not Path("out.onnx").exists()


def test_existing_output_is_refused_before_the_work(command: Run) -> None:
    Path("out.onnx").write_text("mine", "utf-8")
    assert_error(command("decoder.onnx", "--max-ppl-increase", "1%", "-o", "out.onnx"), "out.onnx", "--force")
    assert Path("out.onnx").read_text("utf-8") == "mine"


def test_options_are_checked_in_python_too() -> None:
    with pytest.raises(ConfigError, match="--objective is 'area'; allowed are bits and energy"):
        SearchOptions(("mxfp4",), 0.1, objective="area")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--max-ppl-increase is -1"):
        SearchOptions(("mxfp4",), -1)
    with pytest.raises(FormatError, match="fp3"):
        SearchOptions(("fp3",), 0.1)


def test_other_models_than_decoders_are_refused(exported_model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", input_ids=np.arange(3, 11)[np.newaxis])
    given = options(data=(str(tmp_path / "data.npz"),), seq_len=None)
    with pytest.raises(ConfigError, match="is a token classifier, which has no perplexity"):
        search(str(exported_model_folder("bert")), SearchOptions(("mxfp4",), 0.1), str(tmp_path / "out.onnx"), given)
