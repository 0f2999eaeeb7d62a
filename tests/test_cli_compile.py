"""mxcompile compile: what it understands, prints, and answers to mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Recorder, Run, assert_error

from mxcompile import display


def test_the_table_says_what_became_of_every_matmul(run: Run) -> None:
    result = run("decoder.onnx", "-o", "out.onnx", "--set", "*q_proj=mxfp4/none", "--exclude", "*gate_proj")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["4", "linear", "amxfp4", "amxfp4"] in rows
    assert ["1", "linear", "mxfp4", "none"] in rows
    assert ["1", "Q", "x", "K", "amxfp4", "amxfp4"] in rows
    assert ["1", "P", "x", "V", "amxfp4", "amxfp4"] in rows
    assert "output head: kept by default" in result.stdout
    assert "out.report.json" in result.stdout
    assert "bits per weight: 4." in result.stdout
    assert "times smaller" in result.stdout


def test_settings_and_phases_are_told_on_stderr(run: Run) -> None:
    result = run("decoder.onnx", "-o", "out.onnx", "--activations", "none", "--set", "*k_proj=mxfp4", "--no-fuse")
    lines = result.stderr.splitlines()
    assert lines[:6] == [
        "decoder.onnx -> out.onnx",
        "  weights: amxfp4",
        "  activations: none",
        "  attention: no",
        "  set: *k_proj=mxfp4/mxfp4",
        "  fuse: no",
    ]
    assert [line for line in lines[6:] if "pack-weights" in line or "writing" in line] == [
        "  pack-weights",
        "  writing",
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "attention: amxfp4; cache packed"),
        (["--kv-format", "mxfp4"], "attention: queries amxfp4, keys mxfp4, values mxfp4; cache packed"),
        (["--format", "dint4"], "attention: queries int8, keys int8, values dint4; cache packed"),
        (["--kv-blocking", "token"], "attention: amxfp4, values along the features of a token; cache packed"),
        (["--format", "nvfp4"], "attention: nvfp4; cache float, for keys in nvfp4 share a scale over all tokens"),
        (["--kv-cache", "float"], "attention: amxfp4; cache float"),
        (["--no-attention"], "attention: no"),
    ],
)
def test_the_settings_of_attention_are_told_in_a_line(options: list[str], line: str, run: Run) -> None:
    result = run("decoder.onnx", "-o", "out.onnx", *options)
    assert result.exit_code == 0, result.output
    assert f"  {line}" in result.stderr.splitlines()


def test_json_is_one_object_and_the_report(run: Run) -> None:
    result = run("decoder.onnx", "-o", "out.onnx", "--json")
    content = json.loads(result.stdout)
    assert content.pop("report") == "out.report.json"
    assert content == json.loads(Path("out.report.json").read_text())
    assert content["weights"] == "amxfp4"
    assert content["bits_per_weight"] >= 4.5


def test_the_report_of_a_folder_lies_in_it(run: Run) -> None:
    assert json.loads(run("decoder.onnx", "-o", "out/", "--json").stdout)["report"] == "out/report.json"
    assert Path("out/report.json").is_file()


def test_dump_saves_the_model_after_each_pass(run: Run) -> None:
    assert run("decoder.onnx", "-o", "out.onnx", "--dump", "steps").exit_code == 0
    assert len(list(Path("steps").glob("*.onnx"))) == 9


def test_verbose_logs_every_pass(run: Run) -> None:
    result = run("decoder.onnx", "-o", "out.onnx", "--verbose")
    assert "DEBUG mxcompile.compiler: decoder.onnx: pack-weights: changed" in result.stderr
    assert "DEBUG" not in run("decoder.onnx", "-o", "out.onnx", "--force").stderr


def test_a_bar_is_shown_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("decoder.onnx", "-o", "out.onnx", "--json")
    assert result.exit_code == 0
    assert "\x1b[" in result.stderr
    assert json.loads(result.stdout)["output"] == "out.onnx"


def test_the_bar_follows_phases_and_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with display.progress() as tell:
        tell("reading", 0, 0)
        for done in range(4):
            tell("packing", done, 3)
        tell("writing", 0, 0)
    last = capsys.readouterr().err.split("writing")[-1]
    assert "0/?" in last  # and not 0/3


def test_names_with_brackets_are_no_markup(run: Run) -> None:
    Path("[red]").mkdir()
    result = run("decoder.onnx", "-o", "[red]/out.onnx")
    assert result.exit_code == 0
    assert "[red]/out.onnx" in result.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"format": "amxfp4", "weights": None, "activations": None, "fuse": True, "force": False, "task": None}),
        (["--format", "mxfp4", "--weights", "amxfp4"], {"format": "mxfp4", "weights": "amxfp4"}),
        (["--include", "a*", "--include", "b"], {"include": ("a*", "b"), "exclude": ()}),
        (["--exclude", "a*"], {"exclude": ("a*",)}),
        (["--set", "*q=mxfp4"], {"overrides": (("*q", "mxfp4", "mxfp4"),)}),
        (["--set", "*q=dint4"], {"overrides": (("*q", "dint4", "int8"),)}),
        (["--set", "*q=none"], {"overrides": (("*q", "none", "none"),)}),
        (["--set", "a=b=mxfp4/none"], {"overrides": (("a=b", "mxfp4", "none"),)}),
        ([], {"attention": True, "attention_format": None, "kv_format": None, "kv_blocking": "sequence"}),
        (["--no-attention"], {"attention": False, "kv_cache": None}),
        (["--attention-format", "mxfp4", "--kv-format", "int8"], {"attention_format": "mxfp4", "kv_format": "int8"}),
        (["--attention-format", "mxfp4", "--block-size", "16"], {"attention_format": "mxfp4_b16"}),
        (["--kv-blocking", "token", "--kv-cache", "float"], {"kv_blocking": "token", "kv_cache": "float"}),
        (["--no-fuse", "--force", "--task", "t"], {"fuse": False, "force": True, "task": "t"}),
        (["--block-size", "16"], {"format": "amxfp4_b16"}),
        (["--block-size", "32"], {"format": "amxfp4"}),
        (["--block-size", "64", "--activations", "none"], {"format": "amxfp4_b64", "activations": "none"}),
        (["--block-size", "64", "--weights", "mxfp4_b16"], {"format": "amxfp4_b64", "weights": "mxfp4_b16"}),
        (["--block-size", "16", "--set", "q=mxfp4"], {"overrides": (("q", "mxfp4_b16", "mxfp4_b16"),)}),
    ],
)
def test_options_become_settings(options: list[str], expected: dict[str, Any], run: Run, recorder: Recorder) -> None:
    assert_error(run("m.onnx", "-o", "o.onnx", *options), "recorded")
    assert recorder.arguments.items() >= expected.items()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--format", "int5"], ["unknown format 'int5'", "amxfp4, "]),
        (["--block-size", "48"], ["block size 48 is not possible", "16, 32, 64"]),
        (["--set", "mxfp4"], ["--set 'mxfp4': PATTERN=FORMAT"]),
        (["--set", "=mxfp4"], ["PATTERN=FORMAT"]),
        (["--set", "q="], ["PATTERN=FORMAT"]),
        (["--set", "q=mxfp4/"], ["PATTERN=FORMAT"]),
        (["--set", "q=int5"], ["unknown format 'int5'"]),
        (["--weights", "none"], ["nothing to quantize"]),
        (["--no-attention", "--kv-format", "mxfp4"], ["--no-attention; leave one of them out"]),
        (["--kv-cache", "packed", "--format", "nvfp4"], ["--kv-cache packed is not possible", "--kv-format"]),
        (["--attention-format", "int5"], ["unknown format 'int5'"]),
        (["--exclude", "*nowhere*"], ["*nowhere*", "/layers.0/attn/q_proj"]),
        (["--exclude", "*"], ["nothing to quantize"]),
        (["--config", "nowhere.toml"], ["nowhere.toml: cannot be read as TOML"]),
    ],
)
def test_mistakes_in_the_options_are_one_line(options: list[str], parts: list[str], run: Run) -> None:
    assert_error(run("decoder.onnx", "-o", "out.onnx", *options), *parts)
    assert not Path("out.onnx").exists()


def test_existing_output_is_kept_unless_forced(run: Run) -> None:
    Path("out.onnx").write_text("mine")
    assert_error(run("decoder.onnx", "-o", "out.onnx"), "out.onnx: exists already; add --force")
    assert Path("out.onnx").read_text() == "mine"
    assert run("decoder.onnx", "-o", "out.onnx", "--force").exit_code == 0


def test_a_json_error_leaves_stdout_empty(run: Run) -> None:
    assert_error(run("nowhere.onnx", "-o", "out.onnx", "--json"), "nowhere.onnx: no such file or folder")


# --config ------------------------------------------------------------------------------------------------------------


def test_a_config_file_has_the_keys_of_the_options(run: Run, recorder: Recorder) -> None:
    Path("c.toml").write_text(
        """
        model = "m.onnx"
        output = "o.onnx"
        format = "mxfp4"
        block-size = 16
        exclude = ["*down_proj", "*up_proj"]
        set = ["*q_proj=amxfp4/none"]
        no-fuse = true
        force = false
        """
    )
    run("--config", "c.toml")
    assert (
        recorder.arguments.items()
        >= {
            "source": "m.onnx",
            "output": "o.onnx",
            "format": "mxfp4_b16",
            "exclude": ("*down_proj", "*up_proj"),
            "overrides": (("*q_proj", "amxfp4_b16", "none"),),
            "fuse": False,
            "force": False,
        }.items()
    )


def test_explicit_options_win_over_the_config_file(run: Run, recorder: Recorder) -> None:
    Path("c.toml").write_text('format = "mxfp4"\nactivations = "none"\nexclude = ["a"]\noutput = "other.onnx"')
    run("m.onnx", "-o", "o.onnx", "--format", "amxfp4", "--exclude", "b", "--config", "c.toml")
    expected = {"format": "amxfp4", "activations": "none", "exclude": ("b",), "output": "o.onnx"}
    assert recorder.arguments.items() >= expected.items()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("formats = 'mxfp4'", ["c.toml: unknown key 'formats'; allowed are activations, attention, "]),
        ("format = ", ["c.toml: cannot be read as TOML"]),
        ("exclude = 'a'", ["c.toml: exclude: 'a' is not possible; a list of strings is expected"]),
        ("exclude = [1]", ["a list of strings is expected"]),
        ("force = 'yes'", ["c.toml: force: 'yes' is not possible; true or false is expected"]),
        ("format = 4", ["c.toml: format: 4 is not possible; a string is expected"]),
        ("block-size = true", ["a whole number is expected"]),
        ("config = 'c.toml'", ["unknown key 'config'"]),
    ],
)
def test_mistakes_in_the_config_file_are_one_line(text: str, parts: list[str], run: Run) -> None:
    Path("c.toml").write_text(text)
    assert_error(run("decoder.onnx", "-o", "out.onnx", "--config", "c.toml"), *parts)
