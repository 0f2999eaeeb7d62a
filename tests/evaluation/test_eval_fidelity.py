"""The evaluation as a whole: the demo model against torch, against itself, and broken on purpose."""

import dataclasses
import json
import shutil
import sysconfig
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mxcompile import exporter, onnx_file, runtime
from mxcompile.compiler import compile_model
from mxcompile.errors import ConfigError
from mxcompile.evaluation import EvalOptions, Thresholds, evaluate, fidelity, metrics
from mxcompile.evaluation.models import open_compiled
from mxcompile.evaluation.report import EvalReport

DEMO = Path(__file__).parents[2] / "examples" / "demo-model"
TEXT = Path(sysconfig.get_path("stdlib"), "dataclasses.py")
SEQ_LEN = 128
WINDOWS = 4

TORCH = 1e-4
"""Relative difference of perplexity between torch and onnxruntime, as issue and documentation promise: both compute
in float32, in other orders."""

THREADS = 1e-5
"""Relative difference of any figure between numbers of threads, as docs/evaluation.md promises."""

MACHINE = {"perplexity": 1e-3, "kl": 0.02, "top1_agreement": 0.005, "sqnr_db": 0.1}
"""Differences between machines that docs/evaluation.md allows: relative, those of agreement and decibels absolute."""

STOCK = 0.01
"""Relative difference of perplexity between the library and the ops' definitions in stock onnxruntime, whose
float32 sums have other orders: ten times what docs/evaluation.md allows between machines, for so few predictions."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo model in float32, ``plain.onnx``, its tokenizer, and in amxfp4, ``out.onnx``."""
    folder = tmp_path_factory.mktemp("demo")
    with exporter.open_model(str(DEMO)) as exported:
        onnx_file.write_model(exported.models["model.onnx"], folder / "plain.onnx")
    shutil.copy(DEMO / "tokenizer.json", folder)
    compile_model(folder / "plain.onnx", format="amxfp4", output=folder / "out.onnx")
    return folder


def options(**more: object) -> EvalOptions:
    """Few windows, and no prompts unless wanted."""
    settings = {"data": (str(TEXT),), "seq_len": SEQ_LEN, "windows": WINDOWS, "prompts": 0, "threads": 1}
    return EvalOptions(**{**settings, **more})


def numbers(report: EvalReport) -> dict[str, float]:
    """Every figure by its name."""
    assert report.figures is not None
    flat = dataclasses.asdict(report.figures)
    for name in ("perplexity", "kl"):
        flat |= {f"{name} {key}": value for key, value in flat.pop(name).items()}
    return flat


@pytest.fixture(scope="module")
def compared(demo: Path) -> EvalReport:
    return evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), options(prompts=3, new_tokens=12))


def test_perplexity_of_the_unquantized_model_is_that_of_torch(compared: EvalReport) -> None:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    ids = tokenizer(TEXT.read_text("utf-8"), add_special_tokens=False, return_tensors="pt").input_ids[0]
    windows = ids[: WINDOWS * SEQ_LEN].reshape(WINDOWS, SEQ_LEN)
    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    with torch.no_grad():
        logits = model(windows).logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    assert compared.figures is not None
    assert compared.figures.perplexity is not None
    assert compared.figures.perplexity.reference == pytest.approx(loss.exp().item(), rel=TORCH)
    assert compared.figures.predictions == WINDOWS * (SEQ_LEN - 1)


def test_a_hugging_face_reference_gives_the_figures_of_its_export(demo: Path, compared: EvalReport) -> None:
    report = evaluate(str(demo / "out.onnx"), str(DEMO), options())
    assert report.figures == compared.figures


def test_figures_of_a_quantized_model_are_those_of_its_logits(demo: Path, compared: EvalReport) -> None:
    ids = open_compiled(str(demo / "plain.onnx")).tokenizer.encode(TEXT.read_text("utf-8"), add_special_tokens=False)
    windows = np.array(ids.ids[: WINDOWS * SEQ_LEN]).reshape(WINDOWS, SEQ_LEN)
    logits = []
    for name in ("plain.onnx", "out.onnx"):
        model = open_compiled(str(demo / name), threads=1)
        rows = [model.run({"input_ids": window[np.newaxis]})[:-1] for window in windows]
        logits.append(np.concatenate(rows).astype(np.float64))
    r, q = (each - np.log(np.exp(each).sum(axis=-1, keepdims=True)) for each in logits)
    figures = compared.figures
    assert figures is not None
    assert figures.kl is not None
    assert figures.perplexity is not None
    assert figures.kl.mean == pytest.approx((np.exp(r) * (r - q)).sum(axis=-1).mean(), rel=THREADS)
    assert figures.top1_agreement == (r.argmax(axis=-1) == q.argmax(axis=-1)).mean()
    losses = -np.take_along_axis(q, windows[:, 1:].reshape(-1, 1), axis=-1)
    assert figures.perplexity.quantized == pytest.approx(np.exp(losses.mean()), rel=THREADS)
    assert 0 < figures.kl.median < figures.kl.mean < figures.kl.p99 < figures.kl.max


def test_a_model_is_exactly_itself(demo: Path) -> None:
    report = evaluate(str(demo / "out.onnx"), str(demo / "out.onnx"), options(prompts=2, new_tokens=8))
    figures, flips = report.figures, report.flips
    assert figures is not None
    assert flips is not None
    assert figures.kl == metrics.Spread(0, 0, 0, 0)
    assert (figures.top1_agreement, figures.cosine, figures.perplexity_increase) == (1, 1, 0)
    assert (flips.rate, flips.flipped_prompts, flips.median_first_flip) == (0, 0, None)
    assert report.to_dict()["sqnr_db"] is None


def test_a_broken_model_fails_where_a_good_one_passes(demo: Path, compared: EvalReport, tmp_path: Path) -> None:
    proto = onnx.load(demo / "out.onnx")
    down = next(node for node in proto.graph.node if "layers.1/mlp/down_proj" in node.name)
    (scales,) = (each for each in proto.graph.initializer if each.name == down.input[2])
    scales.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(scales)), scales.name))
    onnx.save(proto, tmp_path / "broken.onnx")
    limits = Thresholds(max_kl=0.3, min_top1=0.7, max_ppl_increase=0.2, min_sqnr=12, min_cosine=0.97)
    good = evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), options(thresholds=limits))
    broken = evaluate(str(tmp_path / "broken.onnx"), str(demo / "plain.onnx"), options(thresholds=limits))
    assert good.failed == ()
    assert {gate.threshold for gate in broken.failed} == set(limits.given)


def test_threads_do_not_change_the_figures(demo: Path, compared: EvalReport) -> None:
    double = evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), options(prompts=3, new_tokens=12, threads=2))
    assert numbers(double) == pytest.approx(numbers(compared), rel=THREADS)
    assert double.flips == compared.flips


def test_one_unit_in_the_last_place_changes_no_figure_beyond_what_is_stated(
    demo: Path, compared: EvalReport, tmp_path: Path
) -> None:
    proto = onnx.load(demo / "out.onnx")
    (embedding,) = (each for each in proto.graph.initializer if each.name == "model.embed_tokens.weight")
    values = numpy_helper.to_array(embedding)
    up = np.random.default_rng(0).random(values.shape) < 0.5
    moved = np.where(up, np.nextafter(values, np.float32(np.inf)), values)
    embedding.CopyFrom(numpy_helper.from_array(moved, embedding.name))
    onnx.save(proto, tmp_path / "moved.onnx")
    found, before = (
        evaluate(str(tmp_path / "moved.onnx"), str(demo / "plain.onnx"), options()).figures,
        compared.figures,
    )
    assert found is not None
    assert before is not None
    assert found.perplexity is not None
    assert before.perplexity is not None
    assert found.kl is not None
    assert before.kl is not None
    assert found.perplexity.quantized == pytest.approx(before.perplexity.quantized, rel=MACHINE["perplexity"])
    assert found.kl.mean == pytest.approx(before.kl.mean, rel=MACHINE["kl"])
    assert found.kl.p99 == pytest.approx(before.kl.p99, rel=MACHINE["kl"])
    assert found.top1_agreement == pytest.approx(before.top1_agreement, abs=MACHINE["top1_agreement"])
    assert found.sqnr_db == pytest.approx(before.sqnr_db, abs=MACHINE["sqnr_db"])


def test_without_the_library_the_model_is_as_good(demo: Path, compared: EvalReport) -> None:
    stock = evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), options(library=False, windows=1))
    fast = evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), options(windows=1))
    assert stock.figures is not None
    assert stock.figures.perplexity is not None
    assert fast.figures is not None
    assert fast.figures.perplexity is not None
    assert stock.figures.perplexity.quantized == pytest.approx(fast.figures.perplexity.quantized, rel=STOCK)


def test_perplexity_of_one_model_is_that_of_the_comparison(demo: Path, compared: EvalReport) -> None:
    ids = open_compiled(str(demo / "plain.onnx")).tokenizer.encode(TEXT.read_text("utf-8"), add_special_tokens=False)
    windows = np.array(ids.ids[: WINDOWS * SEQ_LEN]).reshape(WINDOWS, SEQ_LEN)
    session = runtime.create_session(demo / "out.onnx", threads=1)
    assert compared.figures is not None
    assert compared.figures.perplexity is not None
    expected = compared.figures.perplexity.quantized
    assert fidelity.perplexity(session, windows) == pytest.approx(expected, rel=THREADS)


# Stopping and going on ------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Stop:
    """Progress that stops the evaluation at a step."""

    phase: str
    step: int

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase == self.phase and done == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("phase", "step"), [("windows", 2), ("greedy text", 2)])
def test_a_stopped_evaluation_goes_on_where_it_was(
    phase: str, step: int, demo: Path, compared: EvalReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.jsonl"
    wanted = options(prompts=3, new_tokens=12, resume=str(state))
    with pytest.raises(KeyboardInterrupt):
        evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), wanted, progress=Stop(phase, step))
    done = [json.loads(line) for line in state.read_text("utf-8").splitlines()][1:]
    assert len(done) == (step if phase == "windows" else WINDOWS + step)
    state.write_text(state.read_text("utf-8") + '{"kind": "window", "ind', "utf-8")  # Killed while it wrote.
    computed: list[object] = []
    compute = fidelity._window
    monkeypatch.setattr(fidelity, "_window", lambda *each: computed.append(each) or compute(*each))
    report = evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), wanted)
    assert len(computed) == (WINDOWS - step if phase == "windows" else 0)
    assert (report.figures, report.flips) == (compared.figures, compared.flips)


@pytest.mark.parametrize(
    ("change", "named"), [({"windows": 3}, "data"), ({"prompts": 1}, "prompts"), ({"new_tokens": 3}, "new tokens")]
)
def test_the_state_of_another_evaluation_is_refused(
    change: dict[str, object], named: str, demo: Path, tmp_path: Path
) -> None:
    wanted = {"resume": str(tmp_path / "state.jsonl"), "windows": 1}
    evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), options(**wanted))
    with pytest.raises(ConfigError, match=rf"state\.jsonl: belongs to another evaluation, which differs in {named};"):
        evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), options(**{**wanted, **change}))


@pytest.mark.parametrize("content", ["something\n", "something", '{"kind": "window"}\n', '{"settings": 3}\n', "[]\n"])
def test_a_file_that_is_no_state_is_refused_and_kept(content: str, demo: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text(content, "utf-8")
    with pytest.raises(ConfigError, match="notes: is not what --resume wrote"):
        evaluate(str(demo / "out.onnx"), str(demo / "plain.onnx"), options(resume=str(tmp_path / "notes")))
    assert (tmp_path / "notes").read_text("utf-8") == content


# Other kinds of models ------------------------------------------------------------------------------------------------


def quantized(folder: Path, output: Path) -> str:
    compile_model(folder, format="amxfp4", output=output, kv_cache="float")
    return str(output)


def test_a_vision_model_is_compared_by_its_classes(
    exported_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = exported_model_folder("vit")
    pixels = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "images.npz", pixel_values=pixels)
    wanted = EvalOptions(data=(str(tmp_path / "images.npz"),), windows=4, thresholds=Thresholds(min_top1=0))
    report = evaluate(quantized(folder, tmp_path / "vit.onnx"), str(folder), wanted)
    assert (report.kind, report.flips) == ("classifier", None)
    figures = report.figures
    assert figures is not None
    assert (figures.predictions, figures.perplexity) == (4, None)
    sessions = [runtime.create_session(path) for path in (folder / "model.onnx", tmp_path / "vit.onnx")]
    logits = [session.run(["logits"], {"pixel_values": pixels[:4]})[0].argmax(axis=-1) for session in sessions]
    assert figures.top1_agreement == (logits[0] == logits[1]).mean()
    assert figures.sqnr_db > 0


def test_a_masked_language_model_has_no_perplexity(
    exported_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = exported_model_folder("bert")
    (tmp_path / "text").write_text(" ".join(f"w{index}" for index in range(3, 100)), "utf-8")
    model = quantized(folder, tmp_path / "bert.onnx")
    report = evaluate(model, str(folder), EvalOptions(data=(str(tmp_path / "text"),), seq_len=16))
    assert report.kind == "token classifier"
    assert report.figures is not None
    assert (report.figures.predictions, report.figures.perplexity, report.flips) == (6 * 16, None, None)
    assert report.figures.kl is not None


def test_padding_is_not_counted(demo: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 2000, (1, 40))
    np.savez(tmp_path / "plain.npz", input_ids=ids)
    padded = np.concatenate([np.full((1, 8), 2), ids], axis=1)
    np.savez(tmp_path / "padded.npz", input_ids=padded, attention_mask=(np.arange(48) >= 8).astype(int)[np.newaxis])
    reports = [
        evaluate(str(demo / "plain.onnx"), str(demo / "plain.onnx"), EvalOptions(data=(str(file),), new_tokens=4))
        for file in (tmp_path / "plain.npz", tmp_path / "padded.npz")
    ]
    plain, masked = (report.figures for report in reports)
    assert plain is not None
    assert masked is not None
    assert plain.predictions == masked.predictions == 39
    assert plain.perplexity is not None
    assert masked.perplexity is not None
    assert masked.perplexity.reference == pytest.approx(plain.perplexity.reference, rel=TORCH)


def test_memory_beside_the_logits_is_that_of_a_few_pieces() -> None:
    reference = np.zeros((64, metrics.CHUNK // 8), np.float32)
    model, targets = reference.copy(), np.zeros(64, np.int64)
    tracemalloc.start()
    try:
        metrics.compare(reference, model, targets=targets)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # No more than a dozen float64 arrays of a piece at a time; the logits are as large as 64 / 8 pieces in float32.
    assert peak < 12 * metrics.CHUNK * 8
