"""Formats side by side: quality, size, cost on an engine and speed of one model in each of them."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mxcompile import runtime
from mxcompile.compiler import compile_model
from mxcompile.config import CompileConfig, cache_obstacle
from mxcompile.cost.engine import load_engine
from mxcompile.cost.report import CostReport, report_model
from mxcompile.cost.unit_cost import load_technology
from mxcompile.errors import ConfigError, CostModelError, MxCompileError
from mxcompile.evaluation.compare_original import Original, examine
from mxcompile.evaluation.compare_report import CompareReport, Note
from mxcompile.evaluation.compare_rows import cost_status, make_rows
from mxcompile.evaluation.fidelity import EvalOptions, Tell, evaluate
from mxcompile.evaluation.models import open_compiled
from mxcompile.evaluation.plain import open_plain
from mxcompile.evaluation.report import DataReport, EvalReport
from mxcompile.evaluation.sensitivity import DEFAULT_WINDOWS
from mxcompile.evaluation.speed import Timing, time_models
from mxcompile.evaluation.thresholds import Thresholds
from mxcompile.formats import NONE, get_format
from mxcompile.onnx_file import read_model
from mxcompile.report import CompileReport

DEFAULT_FORMATS: Final = ("amxfp4", "mxfp4", "nvfp4", "dint4", "int8")
"""What is compared unless the options say otherwise."""

DEFAULT_ROUNDS: Final = 10
"""Rounds of timing unless the options say otherwise."""

Look = Callable[[str, Path, Original], None]
"""Called with a format, its compiled file, and the original that it was compiled from."""


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """What to compare.

    Attributes:
        formats: The formats, as ``--format``; the original is always a row.
        include: Globs over layers: quantize only these.
        exclude: Globs over layers: leave these alone.
        attention: Whether attention products are quantized too.
        engine: What the cost is estimated on: see `mxcompile.cost`.
        technology: The same.
        prefill: Tokens of a prefill, of the cost and of the timing; None for 128, or half of what the model takes.
        decode: Tokens in the cache before a step of decoding; None likewise.
        rounds: Rounds of timing; 0 for none.

    Raises:
        ConfigError: No format, one twice, ``none``, or a number out of range.
        FormatError: An unknown format.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    attention: bool = True
    engine: str = "edge-npu"
    technology: str = "freepdk45"
    prefill: int | None = None
    decode: int | None = None
    rounds: int = DEFAULT_ROUNDS

    def __post_init__(self) -> None:
        if not self.formats:
            raise ConfigError("--formats names none: give at least one format, such as amxfp4,mxfp4")
        if NONE in self.formats:
            raise ConfigError(f"--formats names {NONE}: leave it out, the original is always the first row")
        names = [get_format(name).name for name in self.formats]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"--formats names {twice} twice: give different formats, such as amxfp4,mxfp4")
        for name, least in (("prefill", 1), ("decode", 1), ("rounds", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ConfigError(f"--{name} is {value}: at least {least} is allowed")

    @property
    def names(self) -> tuple[str, ...]:
        """The formats as they call themselves: ``amxfp4`` of ``amxfp4_b32``."""
        return tuple(get_format(name).name for name in self.formats)

    @property
    def selection(self) -> dict[str, Any]:
        """Which products are quantized, as `CompileConfig.of` and `compile_model` take it."""
        return {"include": self.include, "exclude": self.exclude, "attention": self.attention}


def compare(
    source: str,
    wanted: CompareOptions,
    options: EvalOptions | None = None,
    *,
    progress: Tell | None = None,
    look: Look | None = None,
) -> CompareReport:
    """Compiles a model to every format and says what each does to it.

    The model is exported once. Everything is compiled, and runs once, before anything is measured.
    Then two models are open at a time, the original and one form of it; compiled files are on disk meanwhile.

    Args:
        source: A hub id, a Hugging Face folder, or an .onnx file.
        wanted: What to compare.
        options: What to measure quality on; tasks, thresholds and `resume` do not matter. None takes 16 windows of the
            text that the source names.
        progress: Called with the phase and its steps.
        look: Called with every compiled file when all is measured.

    Raises:
        MxCompileError: A model that cannot be opened; a format that it cannot be compiled to or run in, which the
            message names; data that does not fit, or settings that cannot be.
        CostModelError: No such engine or technology.
    """
    start, tell = time.perf_counter(), progress or (lambda phase, done, total: None)
    load_technology(wanted.technology), load_engine(wanted.engine)  # a wrong name is told before the work
    options = options or EvalOptions(windows=DEFAULT_WINDOWS)
    options = dataclasses.replace(options, tasks=(), thresholds=Thresholds(), resume=None)
    with (
        open_plain(source, options.task, tell) as plain,
        tempfile.TemporaryDirectory(prefix="mxcompile-") as folder,
    ):
        original = examine(plain, source, options, prefill=wanted.prefill, decode=wanted.decode)
        options = dataclasses.replace(options, data=original.samples.files)
        compiled = {name: _compile(name, original, Path(folder), wanted, options, tell) for name in wanted.names}
        found = _measure(original, compiled, wanted, options, tell)
        if look is not None:
            for name, each in compiled.items():
                look(name, Path(each.output), original)
    report = _report(source, original, wanted, options)
    return dataclasses.replace(report, **found, seconds=time.perf_counter() - start)


def _measure(
    original: Original, compiled: Mapping[str, CompileReport], wanted: CompareOptions, options: EvalOptions, tell: Tell
) -> dict[str, Any]:
    """Rows, notes and origin of the costs, by the names that they have in the report."""
    paths = {original.format: original.path} | {name: Path(each.output) for name, each in compiled.items()}
    costs, notes = _costs(paths, original, wanted, tell)
    quality = {name: _evaluate(name, paths[name], original.path, options, tell) for name in compiled}
    timings = {name: _time(name, paths[name], original, wanted.rounds, options, tell) for name in compiled}
    return {
        "cost_status": cost_status(costs.values()),
        "rows": make_rows(original, compiled, quality, costs, timings),
        "notes": (*notes, *(_cache_notes(compiled, wanted) if original.pasts else ())),
    }


def _report(source: str, original: Original, wanted: CompareOptions, options: EvalOptions) -> CompareReport:
    """The report without its rows."""
    samples, runs = original.samples, original.runs
    return CompareReport(
        version=importlib.metadata.version("mxcompile"),
        source=source,
        kind=original.kind,
        data=DataReport(samples.files, samples.missing, samples.digest, len(samples), samples.seq_len),
        unit="sample" if runs.tokens is None else "token",
        prefill=runs.tokens,
        decode=None if runs.context is None else len(runs.context),
        steps=runs.steps,
        rounds=wanted.rounds,
        threads=options.threads,
        isa=runtime.library_info().isa if options.library else None,
        engine=wanted.engine,
        technology=wanted.technology,
    )


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the format in front of an error's message."""
    try:
        yield
    except MxCompileError as error:
        raise type(error)(f"{name}: {error}") from error


def _compile(
    name: str, original: Original, folder: Path, wanted: CompareOptions, options: EvalOptions, tell: Tell
) -> CompileReport:
    """Compiles the original to a format, and runs it once, so that one that fails is told before the others' work."""
    with _naming(name):
        report = compile_model(
            original.path,
            format=name,
            output=folder / f"{name}.onnx",
            progress=lambda phase, done, total: tell(f"{name}: compiling", done, total),
            **wanted.selection,
        )
        tell(f"{name}: first run", 0, 0)
        model = open_compiled(report.output, threads=options.threads, library=options.library)
        model.run(original.samples[0])
        return report


def _costs(
    paths: Mapping[str, Path], original: Original, wanted: CompareOptions, tell: Tell
) -> tuple[dict[str, CostReport], list[Note]]:
    """The cost of every form that has one, and why the others have none."""
    found: dict[str, CostReport] = {}
    missing: dict[str, list[str]] = {}
    for index, (name, path) in enumerate(paths.items()):
        tell("counting energy", index, len(paths))
        machine: dict[str, Any] = {"engine": wanted.engine, "technology": wanted.technology}
        try:
            found[name] = report_model(path.name, read_model(path, compiled=True), **machine, **original.phases)
        except CostModelError as error:
            missing.setdefault(str(error), []).append(name)
    return found, [Note(tuple(names), f"no cost: {reason}") for reason, names in missing.items()]


def _cache_notes(compiled: Mapping[str, CompileReport], wanted: CompareOptions) -> list[Note]:
    """Why tensors of the cache stay in float."""
    reasons: dict[str, list[str]] = {}
    for name, report in compiled.items():
        found = set(report.kv_cache_skipped.values())
        if report.kv_cache is None:
            config = CompileConfig.of(name, **wanted.selection)
            found.add(cache_obstacle(config.keys, config.values, config.kv_blocking))
        for reason in filter(None, sorted(found)):
            reasons.setdefault(reason, []).append(name)
    return [
        Note(tuple(names), f"keys or values stay in float in the cache: {reason}") for reason, names in reasons.items()
    ]


def _evaluate(name: str, path: Path, plain: Path, options: EvalOptions, tell: Tell) -> EvalReport:
    """The quality of a format; the data come in the same windows each time."""
    with _naming(name):
        return evaluate(str(path), str(plain), options, progress=lambda phase, *steps: tell(f"{name}: {phase}", *steps))


def _time(name: str, path: Path, original: Original, rounds: int, options: EvalOptions, tell: Tell) -> Timing | None:
    """Times of the original and of a format, in turns; None without rounds."""
    if not rounds:
        return None
    with _naming(name):
        models = [
            open_compiled(str(each), threads=options.threads, library=options.library) for each in (original.path, path)
        ]
        return time_models(models, original.runs, rounds, functools.partial(tell, f"{name}: timing"))
