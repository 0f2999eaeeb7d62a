"""The README is true: its commands print what it shows, its Python runs, its table and names are those that exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mxcompile.cli import cli
from mxcompile.formats import FORMATS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
MEASURED = re.compile(r"\d[\d.]*(?= (?:s|tokens/s)\b)|(?<=peak memory )[\d.]+ [kMG]B")
"""Figures that differ from run to run: times, speeds, and the memory of the process."""


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def sessions() -> list[tuple[str, str]]:
    """Commands of the console blocks, each with the output below it."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def programs() -> list[tuple[str, str]]:
    """Python blocks, each with the output in the text block right below it."""
    return re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def comparable(text: str) -> list[str]:
    """Lines without what differs from run to run, and without empty ones at the ends."""
    return [MEASURED.sub("#", line).rstrip() for line in text.strip().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands find the examples."""
    made = tmp_path_factory.mktemp("readme")
    (made / "examples").symlink_to(ROOT / "examples")
    return made


def run(arguments: list[str], folder: Path) -> str:
    """Standard output of the interpreter, which must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def compiled(folder: Path) -> Path:
    """The folder after the console sessions, whose output is compared on the way."""
    assert sessions()
    for command, expected in sessions():
        program, *arguments = shlex.split(command)
        assert program == "mxcompile"
        printed = run(["-m", "mxcompile.cli", *arguments], folder)
        assert comparable(printed) == comparable(expected), command
    return folder


def test_commands_print_what_is_shown(compiled: Path) -> None:
    assert (compiled / "demo.onnx").is_file()


@pytest.mark.parametrize("number", range(len(programs())))
def test_python_prints_what_is_shown(number: int, compiled: Path) -> None:
    program, expected = programs()[number]
    assert comparable(run(["-c", program], compiled)) == comparable(expected)


def test_every_python_block_is_run() -> None:
    assert len(programs()) == len(blocks("python"))


def test_table_of_formats_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]+) \| ([^|]+) \| ([\d.]+) \| ([^|]+) \|", README, re.MULTILINE)
    expected = [
        (
            fmt.name,
            fmt.element.name,
            ", ".join(str(size) if size else "rows" for size in fmt.block_sizes),
            f"{fmt.scales_per_block} x {fmt.scale_type}" if fmt.scales_per_block <= 2 else fmt.scale_type,
            f"{fmt.bits_per_element:g}",
            fmt.description,
        )
        for fmt in FORMATS.values()
    ]
    assert rows == expected


def test_every_option_exists(folder: Path) -> None:
    commands = ([], *([name] for name in cli.commands))
    helps = [run(["-m", "mxcompile.cli", *name, "--help"], folder) for name in commands]
    prose = re.sub(r"^```sh\n.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose)):
        assert any(re.search(rf"{option}\b", text) for text in helps), option


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"`make (\w+)`", README)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def test_every_named_file_exists() -> None:
    names = re.findall(r"`((?:mxcompile|passes|custom_ops|tests|examples|benchmarks)/[\w./-]*)`", README)
    assert names
    for name in names:
        assert (ROOT / name).exists(), name
