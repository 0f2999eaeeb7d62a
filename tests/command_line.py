"""What the tests of the command line share: running it, in this process or in another one, and reading its errors."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from mxcompile.errors import ConfigError

Run = Callable[..., Result]
"""The fixture `run`: the command line on these arguments."""


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
        raise ConfigError("recorded")
