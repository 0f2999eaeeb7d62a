"""Tasks of lm-evaluation-harness on our sessions; the only file that imports lm_eval (extra ``eval``)."""

import contextlib
import io
import logging
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mxcompile import generation
from mxcompile.errors import ConfigError, MxCompileError, UnsupportedModelError
from mxcompile.evaluation import metrics
from mxcompile.evaluation.data import DEFAULT_WINDOW
from mxcompile.evaluation.models import IDS, EvalModel

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval import evaluator, utils
        from lm_eval.api.model import TemplateLM
        from lm_eval.tasks import TaskManager
except ImportError as error:
    raise ConfigError(
        f"--tasks needs lm-evaluation-harness, of which {error.name} cannot be imported: pip install 'mxcompile[eval]'"
    ) from error

_YAML = (".yaml", ".yml")
_NEW_TOKENS = 256  # What the harness itself takes where a task does not say.


class SessionLM(TemplateLM):  # type: ignore[misc]
    """A decoder as the harness knows models, with tokens before and around texts as its own class for transformers.

    One sequence runs at a time, so that no other one changes its numbers.
    """

    def __init__(self, model: EvalModel) -> None:
        """Args: a decoder that has a tokenizer.

        Raises:
            UnsupportedModelError: No decoder with a key-value cache.
        """
        super().__init__()
        if model.kind != "decoder" or not model.has_cache:
            raise UnsupportedModelError(
                f"{model.name}: --tasks needs a decoder with a key-value cache, and this one is of kind {model.kind}; "
                "compile with --task text-generation-with-past"
            )
        self._model = model
        self._length = model.max_positions or DEFAULT_WINDOW

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text; 0 if the model names none."""
        return min(self._model.end_tokens, default=0)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it: the token that begins texts, else that ends them."""
        return self.eot_token_id if self._model.begin_token is None else self._model.begin_token

    @property
    def tokenizer_name(self) -> str:
        """What the harness calls the tokenizer in its caches."""
        return self._model.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text; by default with those that the tokenizer adds, unless the text begins with one."""
        if add_special_tokens is None:
            begin = self._tokenizer.id_to_token(self.prefix_token_id)
            add_special_tokens = not (begin and string.startswith(begin))
        ids: list[int] = self._tokenizer.encode(string, add_special_tokens=add_special_tokens).ids
        return ids

    @property
    def _tokenizer(self) -> Any:
        return self._model.tokenizer

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is the greedy one; the context is cut at its front."""
        return [self._score(context, continuation) for _, context, continuation in requests]

    def _score(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        if not continuation:
            return 0.0, True
        if len(continuation) > self._length:
            raise ConfigError(
                f"{self._model.name}: a continuation of {len(continuation)} tokens; it takes {self._length}"
            )
        ids = np.array([*context, *continuation], np.int64)[-(self._length + 1) :]
        targets = ids[-len(continuation) :]
        logits = self._model.run({IDS: ids[np.newaxis, :-1]})[-len(continuation) :]
        return -metrics.loss(logits, targets), bool((logits.argmax(axis=-1) == targets).all())

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows as long as the model takes."""
        totals = []
        for request in requests:
            tokens = self.tok_encode(request.args[0])
            windows = utils.get_rolling_token_windows(tokens, self.prefix_token_id, self._length, 1)
            pairs = (utils.make_disjoint_window(window) for window in windows)
            totals.append(sum(self._score(context, continuation)[0] for context, continuation in pairs))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations up to the first of the stop texts, which do not belong to them."""
        return [self._generate(*request.args) for request in requests]

    def _generate(self, context: str, settings: dict[str, Any]) -> str:
        if settings.get("do_sample") and settings.get("temperature", 1) != 0:
            raise ConfigError("the task draws tokens at random (do_sample); only greedy tasks can be run")
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        count = int(settings.get("max_gen_toks", _NEW_TOKENS))
        prompt = self.tok_encode(context)[-max(1, self._length - count) :] or [self.prefix_token_id]
        cache = generation.Cache(self._model.session, self._model.name)
        fed, new, text = prompt, list[int](), ""
        while len(new) < count and len(prompt) + len(new) < self._length:
            token = int(np.argmax(cache.step(fed)))
            if token in self._model.end_tokens:
                break
            new, fed = [*new, token], [token]
            text = self._tokenizer.decode(new)
            if ends := [text.index(stop) for stop in stops if stop and stop in text]:
                return str(text[: min(ends)])
        return str(text)


def run_tasks(
    models: Sequence[EvalModel], tasks: Sequence[str], *, limit: int | None = None
) -> list[dict[str, dict[str, float]]]:
    """Results of tasks, of each model.

    Few-shot examples are drawn with the harness' own seeds, which are set for the whole process.

    Args:
        models: Decoders that have a tokenizer.
        tasks: Names of the harness' own tasks, groups or tags, and .yaml files of tasks.
        limit: At most so many documents of each task.

    Returns:
        For each model: task -> metric -> value; metrics are called as the harness calls them, such as ``acc`` or
        ``acc_norm``, with the filter behind a comma if it is not ``none``.

    Raises:
        ConfigError: An unknown task, or one that cannot be read or run.
        UnsupportedModelError: No decoder with a key-value cache.
    """
    language_models = [SessionLM(model) for model in models]
    with _quiet():
        own = all(Path(task).suffix in _YAML for task in tasks)
        manager = TaskManager(include_defaults=not own)  # Thousands of files, which take seconds to read.
        specs = [_spec(task, manager) for task in tasks]
        try:
            return [_run(language_model, specs, manager, limit) for language_model in language_models]
        except MxCompileError:
            raise
        except Exception as error:  # A task is a program of others: data that cannot be loaded, templates, metrics
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
            raise ConfigError(
                f"--tasks {', '.join(tasks)}: failed: {type(error).__name__}: {reason}; check its file and its data"
            ) from error


def _run(model: SessionLM, specs: list[str], manager: TaskManager, limit: int | None) -> dict[str, dict[str, float]]:
    """Results of one model: what simple_evaluate does, without looking for compilers and git on the machine."""
    random.seed(evaluator.DEFAULT_RANDOM_SEED)
    np.random.seed(evaluator.DEFAULT_OTHER_SEED)
    loaded = manager.load(specs)
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=evaluator.DEFAULT_OTHER_SEED)
    content = evaluator.evaluate(lm=model, task_dict=loaded, limit=limit, bootstrap_iters=0, log_samples=False)
    assert content is not None  # It is of other processes alone
    return {name: _metrics(values) for name, values in content["results"].items()}


def _spec(task: str, manager: Any) -> str:
    """What the harness calls a task: a known name, or the path of a file.

    Raises:
        ConfigError: Neither.
    """
    if task in manager.task_index:
        return task
    file = Path(task).expanduser()
    if file.suffix not in _YAML:
        raise ConfigError(f"--tasks {task}: no such task; `lm_eval ls tasks` lists them; a task of your own is a .yaml")
    if not file.is_file():
        raise ConfigError(f"--tasks {task}: no such file; give a task's .yaml file, or its name")
    return str(file)


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    """The metrics alone, without standard errors and remarks."""
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    return {
        key.removesuffix(",none"): float(value) for key, value in numbers.items() if "," in key and "_stderr" not in key
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps bars, logs and warnings of the harness off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        output = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
