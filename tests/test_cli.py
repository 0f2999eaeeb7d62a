"""The command line: its commands, their help, and how they end; formats and selftest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Recorder, Run, process

from mxcompile import compiler, selftest
from mxcompile.formats import FORMATS
from mxcompile.runtime import LIBRARY_VARIABLE

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "rich", "tokenizers", "torch", "transformers")


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


@pytest.mark.usefixtures("one_format")
def test_the_selftest_gives_json(run: Run) -> None:
    content = json.loads(run("selftest", "--json").stdout)
    assert content["ok"]
    assert content["isa"]
    assert content["checks"]


@pytest.fixture
def one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the selftest check amxfp4 (and the block sizes that it always checks): the others take seconds."""
    monkeypatch.setattr(selftest, "FORMATS", {"amxfp4": FORMATS["amxfp4"]})


@pytest.mark.usefixtures("one_format")
def test_a_failed_selftest_exits_with_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, "gone.so")
    result = run("selftest")
    assert result.exit_code == 1
    assert "FAILED       library: gone.so: no such file" in result.stdout
    assert result.stderr.startswith("error: selftest: 1 of ")
    as_json = run("selftest", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["ok"]) == (1, False)


@pytest.mark.usefixtures("one_format")
def test_wrong_answers_advise_to_reinstall(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(selftest._KNOWN, "amxfp4", (b"", b""))
    result = run("selftest")
    assert result.exit_code == 1
    assert "amxfp4, function bodies: by hand" in result.stderr
    assert "reinstall: pip install --force-reinstall mxcompile onnxruntime" in result.stderr
