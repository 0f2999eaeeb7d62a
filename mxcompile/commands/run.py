"""``mxcompile run``: text from a decoder, similarities from an encoder."""

from collections.abc import Sequence
from typing import Any

import click

from mxcompile.commands.options import json_option, print_json
from mxcompile.errors import ConfigError

_EPILOG = """\b
Examples:
  mxcompile run out.onnx --prompt "def main" --max-new-tokens 64
  mxcompile run out.onnx --prompt "Once" --temperature 0.8 --top-p 0.95 --seed 7
  mxcompile run bert.onnx --prompt "a cat" --prompt "a dog" --prompt "tax law"
"""


@click.command("run", epilog=_EPILOG)
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
@json_option
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
        print_json({"model": model.name, **dataclasses.asdict(result)})
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
        print_json({"model": model.name, "prompts": prompts, **content})
    else:
        display.show_embeddings(prompts, embeddings, similarity)
