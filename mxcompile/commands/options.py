"""What several commands share: options, their values, files that are written; a TOML file for ``compile``."""

import json
import os
import secrets
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from mxcompile.errors import ConfigError, ExportError

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def report_options(force: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds ``--report`` to a command, and ``--force`` to one that has none.

    Args:
        force: Whether to add ``--force``.
    """

    def add(command: Callable[..., None]) -> Callable[..., None]:
        if force:
            command = click.option("--force", is_flag=True, help="Replace an existing report.")(command)
        return click.option(
            "--report", "page", metavar="FILE.html", help="Write figures, graph and values as one HTML file."
        )(command)

    return add


def print_json(content: Mapping[str, Any]) -> None:
    """Prints the one JSON object of a ``--json`` run."""
    click.echo(json.dumps(content, indent=2))


def config_file(ctx: click.Context, _parameter: click.Parameter, path: str | None) -> str | None:
    """Makes a TOML file's values the defaults of the other options, so that those given on the command line win."""
    if path is None:
        return None
    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    parameters = {_key(parameter): parameter for parameter in ctx.command.params if parameter.name != "config"}
    for key in values:
        if key not in parameters:
            raise ConfigError(f"{path}: unknown key {key!r}; allowed are {', '.join(sorted(parameters))}")
    ctx.default_map = {
        str(parameters[key].name): _checked(f"{path}: {key}", parameters[key], value) for key, value in values.items()
    }
    return path


def _key(parameter: click.Parameter) -> str:
    """The key of a parameter in a TOML file: its long option, or the argument's name."""
    return max(parameter.opts, key=len).removeprefix("--")


def _checked(where: str, parameter: click.Parameter, value: Any) -> Any:
    """A TOML value of the type that the parameter has on the command line."""
    if isinstance(parameter, click.Option) and parameter.is_flag:
        expected, right = "true or false", isinstance(value, bool)
    elif isinstance(parameter, click.Option) and parameter.multiple:
        expected = "a list of strings"
        right = isinstance(value, list) and all(isinstance(item, str) for item in value)
    elif parameter.name == "block_size":
        expected, right = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    else:
        expected, right = "a string", isinstance(value, str)
    if not right:
        raise ConfigError(f"{where}: {value!r} is not possible; {expected} is expected")
    return value


def sizer(block_size: int | None) -> Callable[[str], str]:
    """Adds a block size to a format name.

    A name with one of its own, ``none``, and int8, whose scales are those of whole tokens, stay as they are.
    """
    from mxcompile.formats import FORMATS, get_format

    def sized(name: str) -> str:
        if block_size is None or name not in FORMATS or name == "int8":
            return name
        return get_format(f"{name}_b{block_size}").name

    return sized


def override(text: str, sized: Callable[[str], str]) -> tuple[str, str, str]:
    """``PATTERN=FORMAT`` or ``PATTERN=WEIGHTS/ACTIVATIONS`` as pattern, weights, activations."""
    from mxcompile.config import paired_activations

    pattern, equals, formats = text.rpartition("=")
    weights, slash, activations = formats.partition("/")
    if not (pattern and equals and weights and (activations or not slash)):
        raise ConfigError(f"--set {text!r}: PATTERN=FORMAT or PATTERN=WEIGHTS/ACTIVATIONS is expected")
    weights = sized(weights)
    return pattern, weights, sized(activations) if slash else paired_activations(weights)


def number(_ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """A number; a share may also be a percentage: 0.02 of ``2%``."""
    if text is None:
        return None
    share = isinstance(parameter, click.Option) and parameter.metavar == "SHARE"
    try:
        return float(text.removesuffix("%")) / 100 if share and text.endswith("%") else float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number{', such as 0.02 or 2%' if share else ''}") from None


def names(_ctx: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def file_target(output: str | None, force: bool) -> Path | None:
    """Where a file goes, checked before the work begins; None where nobody asked for one."""
    if output is None:
        return None
    path = Path(output).expanduser()
    if path.is_dir():
        raise ExportError(f"{path}: is a directory; name a file")
    if path.exists() and not force:
        raise ExportError(f"{path}: exists already; add --force to replace it, or choose another output")
    parent = path.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ExportError(f"{path}: the folder {parent} cannot be written to; choose another output")
    return path


def write_file(path: Path, content: str) -> None:
    """Writes a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(content, "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ExportError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
