"""The command line: what it understands, prints and answers to mistakes."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
import text_models
from click.testing import CliRunner, Result

from mxcompile import cli, compiler, display
from mxcompile.formats import FORMATS
from mxcompile.onnx_file import write_model
from mxcompile.runtime import LIBRARY_VARIABLE

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "rich", "tokenizers", "torch", "transformers")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in a folder with ``decoder.onnx``, ``counting.onnx`` and ``encoder.onnx``."""
    monkeypatch.chdir(tmp_path)
    write_model(models.decoder(), Path("decoder.onnx"))
    text_models.save(text_models.counting_decoder(), Path("counting.onnx"))
    text_models.save(text_models.encoder(), Path("encoder.onnx"))
    return lambda *arguments: CliRunner().invoke(cli.cli, [*map(str, arguments)], prog_name="mxcompile")


def process(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "mxcompile.cli", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def assert_error(result: Result, *parts: str) -> None:
    """One line on stderr after the echo of the settings, exit code 1, nothing on stdout."""
    assert result.exit_code == 1, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    for part in parts:
        assert part in last
    assert result.stdout == ""


@dataclasses.dataclass
class Recorder:
    """Stands for compile_model, and remembers what it was called with."""

    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, source: str, **arguments: Any) -> None:
        self.arguments = {"source": source, **arguments}
        raise cli.ConfigError("recorded")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What the command line makes of its options."""
    recorder = Recorder()
    monkeypatch.setattr(compiler, "compile_model", recorder)
    return recorder


# Commands ------------------------------------------------------------------------------------------------------------


def test_the_default_command_is_compile(run: Run) -> None:
    result = run("decoder.onnx", "--format", "amxfp4", "-o", "out.onnx")
    assert result.exit_code == 0, result.output
    assert Path("out.onnx").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("compile", "m.onnx", "-o", "o.onnx"),
        ("m.onnx", "-o", "o.onnx"),
        ("-o", "o.onnx", "m.onnx"),
        ("--output", "o.onnx", "m.onnx"),
        ("--format=amxfp4", "m.onnx", "-o", "o.onnx"),
    ],
)
def test_options_may_come_first(arguments: tuple[str, ...], run: Run, recorder: Recorder) -> None:
    run(*arguments)
    assert (recorder.arguments["source"], recorder.arguments["output"]) == ("m.onnx", "o.onnx")


def test_a_model_called_like_a_command_is_reached_through_compile(run: Run, recorder: Recorder) -> None:
    run("compile", "run", "-o", "o.onnx")
    assert recorder.arguments["source"] == "run"


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("compile", "--help"), ("run", "-h"), ("selftest", "-h")])
def test_help_is_given(arguments: tuple[str, ...], run: Run) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: mxcompile")


def test_compile_options_with_help_give_the_help_of_compile(run: Run) -> None:
    assert "--exclude PATTERN" in run("model.onnx", "--help").stdout


def test_the_version_is_given(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, "mxcompile 0.1.0\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Usage"),
        (("m.onnx",), "Missing option '-o'"),
        (("-o", "o.onnx"), "Missing argument 'MODEL'"),
        (("m.onnx", "-o", "o.onnx", "--colour"), "No such option"),
        (("m.onnx", "-o", "o.onnx", "--kv-cache", "half"), "'half' is not one of 'packed', 'float'"),
        (("m.onnx", "-o", "o.onnx", "--block-size", "many"), "not a valid integer"),
        (("run", "m.onnx"), "Missing option '--prompt'"),
        (("run", "m.onnx", "--prompt", "a", "--threads", "0"), "x>=1"),
        (("run", "m.onnx", "--prompt", "a", "--max-new-tokens", "0"), "x>=1"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], message: str, run: Run) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_bug_shows_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(compiler, "compile_model", broken)
    assert isinstance(run("m.onnx", "-o", "o.onnx").exception, ZeroDivisionError)


def test_help_loads_nothing_heavy() -> None:
    code = f"""
import sys
from mxcompile.cli import cli
for arguments in (["--help"], ["compile", "--help"], ["run", "--help"], ["--version"]):
    cli(arguments, standalone_mode=False)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_console_entry_works_as_a_process(tmp_path: Path) -> None:
    done = process("nowhere.onnx", "-o", "out.onnx", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: nowhere.onnx: no such file or folder")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# compile -------------------------------------------------------------------------------------------------------------


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
        (["--format", "nvfp4"], "attention: nvfp4; cache float"),
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


# run -----------------------------------------------------------------------------------------------------------------


def test_run_continues_the_prompt(run: Run) -> None:
    result = run("run", "counting.onnx", "--prompt", "one two", "--max-new-tokens", "3", "--no-library")
    assert (result.exit_code, result.stdout) == (0, "one two three four five\n")
    assert result.stderr.startswith("3 tokens, ")
    assert "tokens/s" in result.stderr


def test_run_json_is_one_object(run: Run) -> None:
    options = ("--max-new-tokens", "2", "--threads", "1", "--no-library", "--json")
    content = json.loads(run("run", "counting.onnx", "--prompt", "one", *options).stdout)
    assert content["text"] == " two three"
    assert content["tokens"] == [2, 3]
    assert (content["prompt"], content["prompt_tokens"], content["finish"]) == ("one", 1, "length")
    assert content["prefill_seconds"] > 0
    assert content["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("options", "greedy"),
    [
        ([], True),
        (["--seed", "3"], True),
        (["--temperature", "0", "--top-p", "0.9"], True),
        (["--temperature", "9"], False),
        (["--top-k", "8", "--temperature", "9"], False),
    ],
)
def test_sampling_is_asked_for_by_its_options(options: list[str], greedy: bool, run: Run) -> None:
    result = run("run", "counting.onnx", "--prompt", "zero", "--max-new-tokens", "20", "--no-library", *options)
    words = [text_models.WORDS[index % 8] for index in range(21)]
    assert (result.stdout.split() == words) == greedy


def test_top_k_alone_draws_at_temperature_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cli, "_generate", lambda model, prompt, count, sampling, as_json: seen.append(sampling))
    run("run", "counting.onnx", "--prompt", "one", "--no-library", "--top-k", "5", "--seed", "2")
    assert (seen[0].temperature, seen[0].top_k, seen[0].seed) == (1.0, 5, 2)


def test_run_of_a_compiled_model_uses_the_library(run: Run, exported_model_folder: Callable[[str], Path]) -> None:
    assert run(exported_model_folder("llama"), "-o", "llama.onnx").exit_code == 0
    options = ("--max-new-tokens", "4", "--json")
    content = json.loads(run("run", "llama.onnx", "--prompt", "w5 w9", *options).stdout)
    assert content["prompt_tokens"] == 2


def test_prompts_of_an_encoder_are_compared(run: Run) -> None:
    result = run("run", "encoder.onnx", "--prompt", "one", "--prompt", "two", "--prompt", "one", "--no-library")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["cosine", "1", "2", "3", "prompt"]
    assert rows[1][1] == rows[1][3] == rows[2][2] == "1.000"
    assert [row[-1] for row in rows[1:]] == ["one", "two", "one"]


def test_a_single_prompt_of_an_encoder_shows_its_embedding(run: Run) -> None:
    assert run("run", "encoder.onnx", "--prompt", "one", "--no-library").stdout.startswith("4 features: ")


def test_embeddings_as_json(run: Run) -> None:
    result = run("run", "encoder.onnx", "--prompt", "one", "--prompt", "two", "--no-library", "--json")
    content = json.loads(result.stdout)
    assert content["prompts"] == ["one", "two"]
    assert [len(row) for row in content["embeddings"]] == [4, 4]
    assert content["similarity"][0][0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nowhere.onnx", "--prompt", "a"], ["nowhere.onnx: no such file"]),
        (["counting.onnx", "--prompt", "one", "--prompt", "two"], ["continues one --prompt; 2 were given"]),
        (["counting.onnx", "--prompt", ""], ["the prompt '' has no tokens"]),
        (["counting.onnx", "--prompt", "a", "--temperature", "-1"], ["temperature is -1.0"]),
        (["counting.onnx", "--prompt", "a", "--top-p", "2"], ["top-p is 2.0"]),
        (["counting.onnx", "--prompt", "a", "--tokenizer", "nowhere.json"], ["nowhere.json: no such file"]),
        (["decoder.onnx", "--prompt", "a"], ["neither a decoder with a key-value cache", "its inputs are ids"]),
    ],
)
def test_mistakes_of_run_are_one_line(arguments: list[str], parts: list[str], run: Run) -> None:
    assert_error(run("run", *arguments, "--no-library"), *parts)


def test_run_without_the_library_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, "gone.so")
    assert_error(run("run", "counting.onnx", "--prompt", "one"), "gone.so: no such file; MXCOMPILE_LIBRARY")


# formats and selftest ------------------------------------------------------------------------------------------------


def test_formats_are_listed(run: Run) -> None:
    result = run("formats")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["name", "element", "block", "scales", "bits", "description"]
    first = {row[0]: row[1:7] for row in rows if row}
    assert first["amxfp4"] == ["E2M1", "32", "2", "x", "E5M2", "4.5"]
    assert first["mxfp4"] == ["E2M1", "32", "1", "x", "E8M0", "4.25"]


def test_formats_as_json(run: Run) -> None:
    rows = json.loads(run("formats", "--json").stdout)["formats"]
    assert [row["name"] for row in rows] == list(FORMATS)
    assert rows[0]["bits_per_element"] == 4.5
    assert rows[0]["block_sizes"] == [16, 32, 64]


def test_the_selftest_tells_library_and_isa(run: Run) -> None:
    result = run("selftest")
    assert result.exit_code == 0, result.output
    assert "isa:" in result.stdout
    assert "FAILED" not in result.stdout
    content = json.loads(run("selftest", "--json").stdout)
    assert content["ok"]
    assert content["isa"]
    assert content["checks"]


def test_a_failed_selftest_exits_with_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, "gone.so")
    result = run("selftest")
    assert result.exit_code == 1
    assert "FAILED       library: gone.so: no such file" in result.stdout
    assert result.stderr.startswith("error: selftest: 1 of ")
    as_json = run("selftest", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["ok"]) == (1, False)


def test_wrong_answers_advise_to_reinstall(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mxcompile import selftest

    monkeypatch.setitem(selftest._KNOWN, "amxfp4", (b"", b""))
    result = run("selftest")
    assert result.exit_code == 1
    assert "amxfp4, function bodies: by hand" in result.stderr
    assert "reinstall: pip install --force-reinstall mxcompile onnxruntime" in result.stderr
