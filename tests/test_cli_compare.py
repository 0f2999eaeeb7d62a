"""mxcompile compare: what it prints and writes, and its answers to mistakes."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Run, assert_error

SMALL = ("--seq-len", 16, "--windows", 1, "--threads", 1, "--prefill", 8, "--decode", 8)
ONLY = ("--include", "*layers.0/mlp/*", "--no-attention")


@pytest.fixture
def model(run: Run, exported_model_folder: Callable[[str], Path]) -> Path:
    """A decoder; in the folder of `run` there is a text for it."""
    Path("text").write_text(" ".join(f"w{word}" for word in range(3, 60)), "utf-8")
    return exported_model_folder("llama") / "model.onnx"


def test_both_tables_are_printed_and_the_figures_written(model: Path, run: Run) -> None:
    given = ("--data", "text", "--prompts", 1, "--new-tokens", 2, "--rounds", 1, "--csv", "out.csv")
    result = run("compare", model, *SMALL, *ONLY, *given, "--formats", "amxfp4_b16, mxfp4")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == [str(model), "(decoder)"]
    assert ["format", "ppl", "change", "KL", "flips", "bits", "of", "all", "file", "KV/token"] in lines
    assert ["format", "energy", "energy", "area", "tokens/s", "float", "tokens/s", "float"] in lines
    rows = [line for line in lines if line and line[0] in ("float32", "amxfp4_b16", "mxfp4")]
    assert [row[0] for row in rows] == 2 * ["float32", "amxfp4_b16", "mxfp4"]
    assert rows[0][2:6] == ["+0.00%", "0.00000", "0.0%", "-"]
    assert (rows[1][5], rows[2][5]) == ("5.00", "4.25")
    assert rows[4][1:4] == ["-", "-", "-"]  # no unit for blocks of 16
    assert "amxfp4_b16: no cost: MatMulBlock /model/layers.0/mlp/" in result.stdout
    assert "keys or values stay in float in the cache: no attention product is quantized" in result.stdout
    assert all(len(line) <= 100 for line in result.stdout.splitlines() if line.startswith(("float32", "amxfp4_b16 ")))
    written = list(csv.DictReader(io.StringIO(Path("out.csv").read_text("utf-8"))))
    assert [row["format"] for row in written] == ["float32", "amxfp4_b16", "mxfp4"]
    assert f"{float(written[2]['perplexity']):.4f}" == rows[2][1]


def test_json_is_one_object_and_nothing_else_and_an_old_table_is_replaced_on_request(model: Path, run: Run) -> None:
    Path("out.csv").write_text("old", "utf-8")
    given = ("--data", "text", "--prompts", 0, "--rounds", 0, "--formats", "mxfp4", "--no-library")
    files = ("--csv", "out.csv", "--force", "--json")
    result = run("compare", model, *SMALL, *ONLY, *given, *files)
    assert result.exit_code == 0, result.output
    assert Path("out.csv").read_text("utf-8").startswith("format,perplexity,")
    content = json.loads(result.stdout)
    assert [row["format"] for row in content["rows"]] == ["float32", "mxfp4"]
    assert (content["prefill"], content["decode"], content["rounds"]) == (8, 8, 0)
    assert content["isa"] is None
    quantized = content["rows"][1]
    assert quantized["kl"] > 0
    assert quantized["bits_per_quantized_weight"] == 4.25
    assert quantized["flip_rate"] is quantized["decode_tokens_per_second"] is None
    assert quantized["prefill_energy_pj_per_token"] < content["rows"][0]["prefill_energy_pj_per_token"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["decoder.onnx", "--formats", "fp3"], ["unknown format 'fp3'"]),
        (["decoder.onnx", "--formats", "mxfp4,mxfp4"], ["--formats names mxfp4 twice"]),
        (["decoder.onnx", "--formats", ","], ["--formats names none", "amxfp4,mxfp4"]),
        (["decoder.onnx", "--engine", "toaster"], ["toaster", "edge-npu"]),
        (["decoder.onnx", "--windows", "0"], ["--windows is 0: at least 1 is allowed"]),
        (["decoder.onnx", "--csv", "text"], ["text: exists already; add --force"]),
        (["decoder.onnx", "--csv", "nowhere/out.csv"], ["nowhere cannot be written to"]),
        (["missing.onnx"], ["missing.onnx"]),
        (["counting.onnx", "--data", "text", "--seq-len", "8"], ["amxfp4: ", "nothing to quantize"]),
        (["counting.onnx"], ["heldout_files.json", "give --data FILE"]),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], parts: list[str], run: Run) -> None:
    Path("text").write_text("one two three four five six seven zero " * 4, "utf-8")
    assert_error(run("compare", *arguments, "--no-library"), *parts)
    assert Path("text").read_text("utf-8").startswith("one two")


def test_wrong_usage_is_exit_code_two(run: Run) -> None:
    result = run("compare")
    assert result.exit_code == 2
    assert "Missing argument 'MODEL'" in result.stderr
