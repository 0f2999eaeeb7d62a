"""The command line: parse, one call, print. Whatever is slow to import is imported by the command that needs it."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mxcompile.cli_options import config_file, override, sizer
from mxcompile.errors import ConfigError, FormatError, MxCompileError, RuntimeLibraryError

_COMPILE_EPILOG = """\b
Examples:
  mxcompile Qwen/Qwen3-0.6B --format amxfp4 -o qwen3/
  mxcompile model.onnx --format mxfp4 --activations none -o out.onnx
  mxcompile folder/ -o out.onnx --exclude '*down_proj' --set '*q_proj=mxfp4/none'
  mxcompile folder/ -o out.onnx --config settings.toml

\b
A pattern is a glob over layer names such as /model/layers.0/mlp/down_proj;
the last --set that matches decides, and wins over --include and --exclude.
Exit codes: 0 done; 1 an error, in one line on stderr; 2 wrong usage.
"""

_CLI_EPILOG = """\b
Examples:
  mxcompile Qwen/Qwen3-0.6B --format amxfp4 -o qwen3.onnx
  mxcompile run qwen3.onnx --prompt "def main"
  mxcompile selftest

`mxcompile compile --help` tells all options of the compiler. A model folder
that is called like a command: mxcompile compile run -o out.onnx
"""

_RUN_EPILOG = """\b
Examples:
  mxcompile run out.onnx --prompt "def main" --max-new-tokens 64
  mxcompile run out.onnx --prompt "Once" --temperature 0.8 --top-p 0.95 --seed 7
  mxcompile run bert.onnx --prompt "a cat" --prompt "a dog" --prompt "tax law"
"""


class CommandGroup(click.Group):
    """A group whose default command is ``compile``, and that turns our errors into one red line and exit code 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts ``compile`` in front of what is neither a command nor an option of the group."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            args = ["compile", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except MxCompileError as error:
            click.secho(f"error: {' '.join(str(error).splitlines())}", fg="red", err=True)
            ctx.exit(1)


@click.group(cls=CommandGroup, epilog=_CLI_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mxcompile", message="%(prog)s %(version)s")
def cli() -> None:
    """Compiles Hugging Face models to 4-bit block-scaled ONNX: mxcompile MODEL --format amxfp4 -o out.onnx.

    MODEL is a hub id, a Hugging Face folder, or an .onnx file. `compile` is what happens if no command is named.
    """


_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@cli.command("compile", epilog=_COMPILE_EPILOG)
@click.argument("model")
@click.option("-o", "--output", required=True, help="out.onnx: one file; DIR/: a folder with tokenizer and configs.")
@click.option("--format", default="amxfp4", show_default=True, help="Format of weights and activations.")
@click.option("--weights", help="Format of the weights, in place of --format.")
@click.option("--activations", help="Format of the activations, in place of --format; none: weights only.")
@click.option("--block-size", type=int, help="Elements that share scales: 16, 32, 64 or 128; see `mxcompile formats`.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Quantize only layers that match. Repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave layers that match alone. Repeatable.")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATTERN=FORMAT", help="Also PATTERN=WEIGHTS/ACTIVATIONS. Repeatable."
)
@click.option(
    "--attention/--no-attention", default=True, show_default=True, help="Quantize the attention products too."
)
@click.option("--attention-format", help="Format of queries, keys, probabilities and values; otherwise --activations.")
@click.option("--kv-format", help="Format of keys and values.")
@click.option(
    "--kv-blocking",
    type=click.Choice(["sequence", "token"]),
    default="sequence",
    show_default=True,
    help="What blocks of values run along.",
)
@click.option(
    "--kv-cache",
    type=click.Choice(["packed", "float"]),
    help="How a decoder keeps keys and values. Default: packed in a file, float in a folder (for optimum).",
)
@click.option("--task", help="Export task; otherwise that of the model's class, with a key-value cache.")
@click.option("--no-fuse", is_flag=True, help="Keep QuantizeBlock and DequantizeBlock around MatMul.")
@click.option("--force", is_flag=True, help="Replace existing output.")
@click.option("--dump", metavar="DIR", help="Save the model after each pass.")
@click.option(
    "--config", is_eager=True, callback=config_file, metavar="FILE.toml", help="Defaults for all these options."
)
@click.option("--verbose", is_flag=True, help="Log every pass on stderr.")
@_json_option
def compile_command(
    model: str,
    output: str,
    format: str,
    weights: str | None,
    activations: str | None,
    block_size: int | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    overrides: tuple[str, ...],
    attention: bool,
    attention_format: str | None,
    kv_format: str | None,
    kv_blocking: str,
    kv_cache: str | None,
    task: str | None,
    no_fuse: bool,
    force: bool,
    dump: str | None,
    config: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Compiles MODEL: a hub id, a Hugging Face folder, or an .onnx file."""
    from mxcompile import display
    from mxcompile.compiler import compile_model, default_kv_cache
    from mxcompile.config import CompileConfig
    from mxcompile.output import Destination

    sized = sizer(block_size)
    settings: dict[str, Any] = {
        "format": sized(format),
        "weights": weights and sized(weights),
        "activations": activations and sized(activations),
        "include": include,
        "exclude": exclude,
        "overrides": tuple(override(text, sized) for text in overrides),
        "fuse": not no_fuse,
        "attention": attention,
        "attention_format": attention_format and sized(attention_format),
        "kv_format": kv_format and sized(kv_format),
        "kv_blocking": kv_blocking,
        "kv_cache": kv_cache or default_kv_cache(output),
    }
    others = {"task": task, "dump": dump, "config": config}
    display.show_settings(model, output, CompileConfig.of(**settings), others)
    with _logging(verbose), display.progress(bar=not verbose) as tell:
        report = compile_model(model, output=output, **settings, task=task, force=force, dump=dump, progress=tell)
    written = Path(report.output)
    path = Destination(written, written.is_dir()).report
    if as_json:
        _print_json({**report.to_dict(), "report": str(path)})
    else:
        display.show_report(report, path)


@contextlib.contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Shows this package's log on stderr, if asked to."""
    if not verbose:
        yield
        return
    logger, handler = logging.getLogger("mxcompile"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@cli.command("run", epilog=_RUN_EPILOG)
@click.argument("file")
@click.option("--prompt", "prompts", multiple=True, required=True, help="Text; repeatable for an encoder.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="At most so many.")
@click.option("--temperature", type=float, help="0: the likeliest token. Default: 0, or 1 with --top-k or --top-p.")
@click.option("--top-k", type=click.IntRange(min=1), help="Draw from so many of the likeliest tokens.")
@click.option("--top-p", type=float, help="Draw from the likeliest tokens of this probability together.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same text.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of onnxruntime; otherwise all cores.")
@click.option("--no-library", is_flag=True, help="Run the ops' bodies in the stock onnxruntime (slow).")
@click.option("--tokenizer", metavar="FILE", help="tokenizer.json; otherwise that in the model or beside it.")
@_json_option
def run_command(
    file: str,
    prompts: tuple[str, ...],
    max_new_tokens: int,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    threads: int | None,
    no_library: bool,
    tokenizer: str | None,
    as_json: bool,
) -> None:
    """Generates text with a decoder, or compares prompts with an encoder.

    FILE is a compiled model, or the folder of one. Of a decoder the prompt and its continuation appear as they come;
    of an encoder, the cosine of every pair of prompts.
    """
    from mxcompile.decoding import Sampling
    from mxcompile.generation import load_text_model

    if temperature is None:
        temperature = 0.0 if top_k is None and top_p is None else 1.0
    sampling = Sampling(temperature, top_k, top_p, seed)
    model = load_text_model(file, tokenizer=tokenizer, threads=threads, library=not no_library)
    if not model.is_decoder:
        _embed(model, prompts, as_json)
    elif len(prompts) == 1:
        _generate(model, prompts[0], max_new_tokens, sampling, as_json)
    else:
        raise ConfigError(f"{file}: is a decoder, which continues one --prompt; {len(prompts)} were given")


def _generate(model: Any, prompt: str, max_new_tokens: int, sampling: Any, as_json: bool) -> None:
    import dataclasses

    from mxcompile.generation import generate

    model.encode(prompt)  # An error of the prompt comes before its echo.
    if not as_json:
        click.echo(prompt, nl=False)
    on_text = None if as_json else lambda piece: click.echo(piece, nl=False)
    result = generate(model, prompt, max_new_tokens=max_new_tokens, sampling=sampling, on_text=on_text)
    if as_json:
        _print_json({"model": model.name, **dataclasses.asdict(result)})
    else:
        click.echo()
    rate = "" if result.tokens_per_second is None else f", {result.tokens_per_second:.1f} tokens/s"
    prefill = f"prompt of {result.prompt_tokens} in {1000 * result.prefill_seconds:.1f} ms"
    cache = f"cache {result.cache_bytes / 1e3:.1f} kB"
    click.secho(f"{len(result.tokens)} tokens{rate}, {prefill}, {cache}", dim=True, err=True)


def _embed(model: Any, prompts: Sequence[str], as_json: bool) -> None:
    from mxcompile import display
    from mxcompile.generation import embed

    embeddings = embed(model, prompts)
    similarity = embeddings @ embeddings.T
    if as_json:
        content = {"embeddings": embeddings.tolist(), "similarity": similarity.tolist()}
        _print_json({"model": model.name, "prompts": prompts, **content})
    else:
        display.show_embeddings(prompts, embeddings, similarity)


@cli.command("formats")
@_json_option
def formats_command(as_json: bool) -> None:
    """Lists the number formats."""
    from mxcompile import display
    from mxcompile.formats import FORMATS

    formats = list(FORMATS.values())
    if not as_json:
        display.show_formats(formats)
        return
    rows = [
        {
            "name": fmt.name,
            "element": fmt.element.name,
            "block_size": fmt.block_size,
            "block_sizes": fmt.block_sizes,
            "scale": fmt.scale_type,
            "scales_per_block": fmt.scales_per_block,
            "bits_per_element": fmt.bits_per_element,
            "description": fmt.description,
        }
        for fmt in formats
    ]
    _print_json({"formats": rows})


@cli.command("conformance")
@click.option("-o", "--output", metavar="DIR", help="Write FORMAT.npz for every format, and manifest.json.")
@click.option("--check", "file", metavar="FILE.npz", help="Compare another tool's arrays with ours.")
@click.option("--format", "formats", multiple=True, help="Only this format; repeatable with -o.")
@click.option("--force", is_flag=True, help="Replace existing output.")
@_json_option
def conformance_command(
    output: str | None, file: str | None, formats: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """Writes golden vectors of the formats with -o, or compares another tool's output with ours by --check.

    The vectors are inputs, codes, scales, decoded values and dot products with their integer sums. A file to check has
    any of these arrays under the same names; the first difference of each is told in bits.
    """
    from mxcompile import conformance, conformance_check, display

    if output is not None and file is None:
        entries = conformance.write_vectors(output, formats, force=force)["formats"]
        manifest = Path(output).expanduser() / conformance.MANIFEST
        if as_json:
            _print_json({"manifest": str(manifest), "files": [entry["file"] for entry in entries]})
        else:
            display.show_vectors(entries, manifest)
    elif file is not None and output is None and len(formats) <= 1 and not force:
        report = conformance_check.check_vectors(file, next(iter(formats), None))
        if as_json:
            _print_json(report.to_dict())
        else:
            display.show_check(report)
        if report.failed:
            raise FormatError(str(report))
    else:
        raise click.UsageError("either -o DIR, or --check FILE.npz with at most one --format and without --force")


@cli.command("selftest")
@_json_option
def selftest_command(as_json: bool) -> None:
    """Checks the custom-op library, onnxruntime, and known answers of every format."""
    from mxcompile import display
    from mxcompile.selftest import selftest

    report = selftest()
    if as_json:
        _print_json(report.to_dict())
    else:
        display.show_selftest(report)
    if report.failed:
        first = report.failed[0]
        found = f"selftest: {len(report.failed)} of {len(report.checks)} checks failed, first {first.name}"
        advice = "" if report.library is None else "; reinstall: pip install --force-reinstall mxcompile onnxruntime"
        raise RuntimeLibraryError(f"{found}: {first.detail}{advice}")


def _print_json(content: Mapping[str, Any]) -> None:
    click.echo(json.dumps(content, indent=2))


def main() -> None:
    """The console entry point."""
    cli(prog_name="mxcompile")


if __name__ == "__main__":
    main()
