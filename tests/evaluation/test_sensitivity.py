"""Sensitivity of every product: figures, ranking, what to leave in float, and the command."""

import dataclasses
import fnmatch
import json
import math
import shlex
import shutil
import sysconfig
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from click.testing import CliRunner
from command_line import Run, assert_error

from mxcompile import exporter, onnx_file
from mxcompile.cli import CommandGroup
from mxcompile.commands.sensitivity import sensitivity_command
from mxcompile.compiler import compile_model
from mxcompile.config import CompileConfig
from mxcompile.errors import ConfigError, UnsupportedModelError
from mxcompile.evaluation import EvalOptions, Thresholds, evaluate, metrics
from mxcompile.evaluation.sensitivity import Change, ProductSensitivity, Selection, SensitivityReport, sensitivity
from mxcompile.evaluation.switched_model import measure, open_switched

pytest_plugins = ("demo_models",)

TEXT = Path(sysconfig.get_path("stdlib"), "dataclasses.py")
SEQ_LEN, WINDOWS = 96, 2

SUMS = 1e-12
"""Relative difference of figures from the same logits, summed in float64 in another order: a few 2**-53, by the
thousand predictions."""


def options(**more: Any) -> EvalOptions:
    settings = {"data": (str(TEXT),), "seq_len": SEQ_LEN, "windows": WINDOWS, "prompts": 0, "threads": 1}
    return EvalOptions(**{**settings, **more})


def target(increase: float) -> Thresholds:
    return Thresholds(max_ppl_increase=increase)


@pytest.fixture(scope="module")
def report(plain_demo: Path) -> SensitivityReport:
    return sensitivity(str(plain_demo), CompileConfig.of("mxfp4"), options(thresholds=target(0.05)))


def assert_is_of(change: Change, model: Path, reference: Path, **more: Any) -> None:
    """The figures that ``eval`` gives of a compiled model."""
    figures = evaluate(str(model), str(reference), options(**more)).figures
    assert figures is not None
    assert change.sqnr_db == pytest.approx(figures.sqnr_db, rel=SUMS)
    assert change.top1_agreement == figures.top1_agreement
    assert (change.kl is None, change.perplexity is None) == (figures.kl is None, figures.perplexity is None)
    if change.kl is not None and figures.kl is not None:
        assert change.kl == pytest.approx(figures.kl.mean, rel=SUMS)
    if change.perplexity is not None and figures.perplexity is not None:
        assert change.perplexity.reference == pytest.approx(figures.perplexity.reference, rel=SUMS)
        assert change.perplexity.quantized == pytest.approx(figures.perplexity.quantized, rel=SUMS)
        assert change.perplexity_increase == pytest.approx(figures.perplexity_increase, rel=1e-9)  # a difference


def test_figures_are_those_that_eval_gives_of_the_compiled_models(
    plain_demo: Path, report: SensitivityReport, tmp_path: Path
) -> None:
    first, last = report.products[0], report.products[-1]
    for change, settings in (
        (report.everything, {}),
        (first.alone, {"include": [first.layer]}),
        (first.others, {"exclude": [first.layer]}),
        (last.alone, {"include": [last.layer]}),
    ):
        compile_model(plain_demo, format="mxfp4", output=tmp_path / "out.onnx", force=True, **settings)
        assert_is_of(change, tmp_path / "out.onnx", plain_demo)


def test_every_product_is_ranked_by_its_divergence(report: SensitivityReport) -> None:
    damages = [product.alone.kl for product in report.products]
    assert len(report.products) == 4 * 9
    assert len({product.layer for product in report.products}) == 4 * 9
    assert damages == sorted(damages, key=lambda kl: -(kl or 0))
    assert all(0 < product.alone.kl < report.everything.kl for product in report.products)  # type: ignore[operator]
    assert all(5 < product.sqnr_db < 40 for product in report.products)
    assert [layer.layer for layer in report.skipped] == ["/model/rotary_emb/MatMul", "/lm_head"]


def test_the_selection_keeps_the_target_with_as_few_products_as_the_ranking_allows(
    plain_demo: Path, report: SensitivityReport, tmp_path: Path
) -> None:
    selection = report.selection
    assert selection is not None
    assert 0 < len(selection.excluded) < len(report.products)
    kept = len(selection.excluded)
    assert selection.excluded == tuple(product.layer for product in report.products[:kept])
    assert selection.elements == sum(product.elements for product in report.products[:kept])
    words = shlex.split(selection.options)
    assert words[::2] == ["--exclude"] * kept
    compile_model(plain_demo, format="mxfp4", output=tmp_path / "out.onnx", exclude=words[1::2])
    assert_is_of(selection.change, tmp_path / "out.onnx", plain_demo)
    assert selection.change.perplexity_increase is not None
    assert selection.change.perplexity_increase <= 0.05
    compile_model(plain_demo, format="mxfp4", output=tmp_path / "fewer.onnx", exclude=words[1:-2:2])
    fewer = evaluate(str(tmp_path / "fewer.onnx"), str(plain_demo), options()).figures
    assert fewer is not None
    assert fewer.perplexity_increase is not None
    assert fewer.perplexity_increase > 0.05


def few(demo: Path, increase: float) -> SensitivityReport:
    config = CompileConfig.of("mxfp4", include=("*layers.0/mlp/*",), attention=False)
    return sensitivity(str(demo), config, options(windows=1, thresholds=target(increase)))


def test_a_target_that_everything_keeps_leaves_nothing_in_float(plain_demo: Path) -> None:
    report = few(plain_demo, 1.0)
    assert report.selection is not None
    assert (report.selection.excluded, report.selection.options, report.selection.elements) == ((), "", 0)
    assert report.selection.change == report.everything


def test_the_same_command_gives_the_same_figures(plain_demo: Path) -> None:
    first, second = (dataclasses.replace(few(plain_demo, 0.001), seconds=0) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.to_dict()))["products"][0]["layer"] == first.products[0].layer


def test_masked_tokens_do_not_count(plain_demo: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 2000, (1, 30))
    mask = (np.arange(30) >= 6).astype(int)[np.newaxis]
    np.savez(tmp_path / "padded.npz", input_ids=ids, attention_mask=mask)
    config = CompileConfig.of("mxfp4", include=("*layers.0/mlp/up_proj",))
    data = {"data": (str(tmp_path / "padded.npz"),), "seq_len": None}
    report = sensitivity(str(plain_demo), config, options(**data))
    compile_model(plain_demo, format="mxfp4", output=tmp_path / "out.onnx", include=config.include)
    assert_is_of(report.products[0].alone, tmp_path / "out.onnx", plain_demo, **data)
    assert_is_of(report.everything, tmp_path / "out.onnx", plain_demo, **data)
    assert report.products[0].others.kl == 0
    assert report.products[0].others.sqnr_db == math.inf
    assert report.to_dict()["products"][0]["others"]["sqnr_db"] is None


@pytest.mark.parametrize(("name", "kind"), [("vit", "classifier"), ("bert", "token classifier")])
def test_other_kinds_of_models_have_the_figures_of_eval(
    name: str, kind: str, exported_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    file = exported_model_folder(name) / "model.onnx"
    rng = np.random.default_rng(0)
    if name == "vit":
        np.savez(tmp_path / "data.npz", pixel_values=rng.standard_normal((3, 3, 32, 32)).astype(np.float32))
    else:
        np.savez(tmp_path / "data.npz", input_ids=rng.integers(3, 90, (3, 12)))
    data = {"data": (str(tmp_path / "data.npz"),), "seq_len": None}
    report = sensitivity(str(file), CompileConfig.of("amxfp4", include=("*layer.1*",)), options(**data))
    assert report.kind == kind
    assert report.everything.perplexity is None
    compile_model(file, format="amxfp4", output=tmp_path / "out.onnx", include=["*layer.1*"])
    assert_is_of(report.everything, tmp_path / "out.onnx", file, **data)
    with pytest.raises(ConfigError, match=r"--max-ppl-increase: .* which has no such figure"):
        sensitivity(str(file), CompileConfig.of("amxfp4"), options(**data, thresholds=target(0.1)))


def test_options_are_quoted_for_patterns_and_for_a_shell() -> None:
    change = Change(None, None, None, None, 0.0)
    names = ("/layer[0]/up", "/it's/qk")
    words = shlex.split(Selection(0.1, names, change, 0).options)
    assert words[::2] == ["--exclude", "--exclude"]
    for pattern, name in zip(words[1::2], names, strict=True):
        assert fnmatch.fnmatchcase(name, pattern)


def test_products_of_a_model_without_logits_are_ranked_by_noise() -> None:
    quiet, noisy = (Change(None, None, None, None, sqnr) for sqnr in (30.0, 10.0))
    products = [ProductSensitivity("/layer", None, "mxfp4", "mxfp4", 1, 20.0, alone, alone) for alone in (quiet, noisy)]
    assert products[0].damage < products[1].damage


def test_memory_does_not_grow_with_choices_and_windows(plain_demo: Path) -> None:
    with open_switched(str(plain_demo), CompileConfig.of("mxfp4"), threads=1) as model:
        choices = [np.ones(len(model.switches), np.bool_)] * 6
        samples = text_samples(4)
        measure(model, samples, choices, lambda done, total: None)
        tracemalloc.start()
        try:
            measure(model, samples, choices, lambda done, total: None)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # Logits are onnxruntime's, which tracemalloc does not see, unless they are copied: SEQ_LEN * 2048 * 4 bytes each.
    # What it sees are a dozen float64 arrays of a piece.
    assert peak < 12 * metrics.CHUNK * 8


def text_samples(windows: int) -> Any:
    from mxcompile.evaluation.data import Samples

    return Samples({"input_ids": np.random.default_rng(0).integers(3, 2000, (windows, SEQ_LEN))}, ())


# Errors and the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def command(run: Run) -> Run:
    """The command, in a folder with small models."""
    group = CommandGroup("mxcompile", commands={"sensitivity": sensitivity_command})
    return lambda *arguments: CliRunner().invoke(group, ["sensitivity", *map(str, arguments)])


def test_progress_counts_every_run(plain_demo: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    config = CompileConfig.of("mxfp4", include=("*layers.0/mlp/*",))
    sensitivity(str(plain_demo), config, options(), progress=lambda *each: seen.append(each))
    runs = [(done, total) for phase, done, total in seen if phase == "products"]
    total = WINDOWS * (1 + 1 + 3 + 3)
    assert {of for _, of in runs} == {total}
    assert runs[0][0] == 0
    assert runs[-1][0] == total
    assert runs == sorted(runs)


def test_the_command_prints_a_ranked_table_and_the_options(plain_demo: Path, command: Run) -> None:
    given = ("--format", "mxfp4", "--data", TEXT, "--seq-len", SEQ_LEN, "--windows", 1, "--threads", 1)
    limits = ("--include", "*layers.[01]/mlp/*", "--max-ppl-increase", "0.5%")
    result = command(plain_demo, *given, *limits)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "1 windows of 96 tokens" in text
    assert "everything quantized: perplexity" in text
    assert "own dB alone KL alone ppl others KL others ppl product" in text
    assert "all in mxfp4" in text
    rows = [
        line.split()
        for line in map(str.rstrip, result.stdout.splitlines())
        if line.endswith("_proj") and "--" not in line
    ]
    assert sorted(row[-1] for row in rows) == [
        f"/model/layers.{layer}/mlp/{name}_proj" for layer in (0, 1) for name in ("down", "gate", "up")
    ]
    assert {len(row) for row in rows} == {6}
    assert "--exclude /model/layers." in text
    content = json.loads(command(plain_demo, *given, *limits, "--json").stdout)
    assert content["selection"]["options"] in text
    assert content["everything"]["perplexity"].keys() == {"reference", "quantized"}
    assert len(content["products"]) == 6


def test_a_target_that_nothing_keeps_is_exit_code_one(plain_demo: Path, command: Run) -> None:
    given = ("--format", "dint3", "--data", TEXT, "--seq-len", SEQ_LEN, "--windows", 1, "--threads", 1)
    result = command(plain_demo, *given, "--include", "*layers.0/mlp/up_proj", "--max-ppl-increase", "0")
    assert result.exit_code == 1
    assert "no product can be quantized within --max-ppl-increase 0; allow more" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decoder.onnx", "--format", "fp3"], "fp3"),
        (["decoder.onnx", "--exclude", "nothing"], "matches no layer"),
        (["missing"], "missing"),
        (["counting.onnx", "--data", "text"], "nothing to quantize"),
        (["decoder.onnx"], "takes ids, no text; give --data FILE.npz"),
        (["decoder.onnx", "--windows", "0"], "--windows is 0"),
        (["decoder.onnx", "--max-ppl-increase", "-1"], "--max-ppl-increase is -1"),
    ],
)
def test_a_mistake_is_one_line_that_says_what(arguments: list[str], message: str, command: Run) -> None:
    assert_error(command(*arguments), message)


def test_a_share_that_is_no_number_is_wrong_usage(command: Run) -> None:
    result = command("decoder.onnx", "--max-ppl-increase", "much")
    assert result.exit_code == 2
    assert "'much' is no number, such as 0.02 or 2%" in result.stderr


def test_text_for_a_model_without_a_tokenizer_is_refused(plain_demo: Path, tmp_path: Path) -> None:
    shutil.copy(plain_demo, tmp_path / "bare.onnx")
    with pytest.raises(exporter.ExportError, match="no tokenizer in it or beside it"):
        sensitivity(str(tmp_path / "bare.onnx"), CompileConfig.of("mxfp4"), options())
    with pytest.raises(ConfigError, match="brings no held-out text of its own"):
        sensitivity(str(plain_demo), CompileConfig.of("mxfp4"), options(data=()))


def test_a_compiled_model_is_refused(plain_demo: Path, tmp_path: Path) -> None:
    compile_model(plain_demo, format="mxfp4", output=tmp_path / "out.onnx")
    with pytest.raises(UnsupportedModelError, match="compiled"):
        sensitivity(str(tmp_path / "out.onnx"), CompileConfig.of("mxfp4"), options())


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    for name in ("encoder_model.onnx", "decoder_model_merged.onnx"):
        onnx_file.write_model(models.decoder(), tmp_path / name)
    with pytest.raises(UnsupportedModelError, match=r"is an encoder-decoder .* give one of its parts"):
        sensitivity(str(tmp_path), CompileConfig.of("mxfp4"), options())
