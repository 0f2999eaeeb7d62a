"""Formats side by side: every figure is the one that the command of its own would give, and the notes say the rest."""

import csv
import dataclasses
import io
import json
import math
import re
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from cost_models import technology_file
from tiny_models import HIDDEN, LAYERS, MLP, POSITIONS, VOCABULARY

from mxcompile import generation, runtime
from mxcompile.compiler import compile_model
from mxcompile.cost.report import report_model
from mxcompile.errors import ConfigError, CostModelError, FormatError, MxCompileError, UnsupportedModelError
from mxcompile.evaluation import EvalOptions, evaluate
from mxcompile.evaluation.compare import CompareOptions, compare
from mxcompile.evaluation.compare_report import ComparedFormat, CompareReport
from mxcompile.evaluation.footprint import Past, cache_bytes
from mxcompile.evaluation.models import open_compiled
from mxcompile.evaluation.show_compare import cost_columns, explanations, quality_columns, to_csv
from mxcompile.formats import get_format
from mxcompile.onnx_file import read_model, write_model

FORMATS = ("amxfp4", "nvfp4", "dint3")
PREFILL, DECODE = 24, 40
"""DECODE is no multiple of a block: there are tokens in the tail of a packed cache."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words that the tiny models know."""
    words = np.random.default_rng(0).integers(3, VOCABULARY, 200)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(f"w{word}" for word in words), "utf-8")
    return path


def options(text: Path, **more: Any) -> EvalOptions:
    settings = {"data": (str(text),), "seq_len": 32, "windows": 2, "prompts": 2, "new_tokens": 4, "threads": 1}
    return EvalOptions(**{**settings, **more})


@dataclasses.dataclass(frozen=True)
class Found:
    """The report, what each format is compiled to on its own, and how many sessions were open at once."""

    report: CompareReport
    plain: Path
    compiled: dict[str, Path]
    most_open: int

    def row(self, name: str) -> ComparedFormat:
        (row,) = (row for row in self.report.rows if row.format == name)
        return row


@pytest.fixture(scope="module")
def found(text: Path, exported_model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Found:
    plain, folder = exported_model_folder("llama") / "model.onnx", tmp_path_factory.mktemp("compare")
    compiled = {name: folder / f"{name}.onnx" for name in FORMATS}
    for name, path in compiled.items():
        compile_model(plain, format=name, output=path)
    wanted = CompareOptions(FORMATS, prefill=PREFILL, decode=DECODE, rounds=2)
    sessions, counts = weakref.WeakSet[Any](), list[int]()
    create = runtime.create_session

    def counted(*arguments: Any, **more: Any) -> Any:
        session = create(*arguments, **more)
        sessions.add(session)
        counts.append(len(sessions))
        return session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "create_session", counted)
        report = compare(str(plain), wanted, options(text))
    return Found(report, plain, compiled, max(counts))


def test_the_first_row_is_the_original_and_differs_from_itself_in_nothing(found: Found) -> None:
    assert [row.format for row in found.report.rows] == ["float32", *FORMATS]
    quality, size = found.report.rows[0].quality, found.report.rows[0].size
    assert quality.perplexity is not None
    assert quality.perplexity > 1
    assert (quality.perplexity_increase, quality.kl, quality.kl_p99, quality.flip_rate) == (0, 0, 0, 0)
    assert (quality.top1_agreement, quality.cosine, quality.sqnr_db) == (1, 1, math.inf)
    assert (size.bits_per_weight, size.bits_per_quantized_weight) == (32, None)
    assert found.report.rows[0].speed.prefill_speedup == found.report.rows[0].speed.decode_speedup == 1


@pytest.mark.parametrize("name", ["amxfp4", "dint3"])
def test_the_quality_of_a_format_is_what_eval_says(name: str, text: Path, found: Found) -> None:
    report = evaluate(str(found.compiled[name]), str(found.plain), options(text))
    figures, flips, quality = report.figures, report.flips, found.row(name).quality
    assert figures is not None
    assert figures.perplexity is not None
    assert figures.kl is not None
    assert flips is not None
    assert quality.perplexity == figures.perplexity.quantized
    assert found.row("float32").quality.perplexity == figures.perplexity.reference
    assert quality.perplexity_increase == figures.perplexity_increase
    assert (quality.kl, quality.kl_p99) == (figures.kl.mean, figures.kl.p99)
    assert (quality.top1_agreement, quality.cosine) == (figures.top1_agreement, figures.cosine)
    assert (quality.sqnr_db, quality.flip_rate) == (figures.sqnr_db, flips.rate)
    assert figures.kl.mean > 0
    assert found.report.data.windows == 2


def test_energy_time_and_area_are_those_of_the_cost_report(found: Found) -> None:
    for name, path in {"float32": found.plain, "amxfp4": found.compiled["amxfp4"]}.items():
        model = read_model(path, compiled=True)
        prefill, decode = report_model("", model, prefill=PREFILL, decode=DECODE).phases
        cost = found.row(name).cost
        assert cost.prefill_energy_pj_per_token == pytest.approx(prefill.total.energy_pj_per_token)
        assert cost.decode_energy_pj_per_token == decode.total.energy_pj
        assert (cost.prefill_latency_us, cost.decode_latency_us) == (
            prefill.total.latency_us,
            decode.total.latency_us,
        )
        assert cost.area_um2 == prefill.total.area_um2


def test_a_format_without_a_unit_has_no_cost_and_a_reason(found: Found) -> None:
    assert set(dataclasses.asdict(found.row("dint3").cost).values()) == {None}
    (note,) = (note for note in found.report.notes if note.formats == ("dint3",))
    assert "no unit multiplies int8 x dint3" in note.text


def test_bits_are_those_of_the_format_and_of_what_stays_in_float(found: Found) -> None:
    rows = json.loads(found.compiled["amxfp4"].with_suffix(".report.json").read_text("utf-8"))
    head = HIDDEN * VOCABULARY  # the only linear layer that is left alone
    quantized = rows["quantized_weights"]
    size = found.row("amxfp4").size
    assert size.bits_per_quantized_weight == 4.5
    assert size.bits_per_weight == pytest.approx((4.5 * quantized + 32 * head) / (quantized + head))


def test_file_sizes_are_those_of_the_files(found: Found) -> None:
    """Metadata name the source, whose path may be longer."""
    for name, path in found.compiled.items():
        assert abs(found.row(name).size.file_bytes - path.stat().st_size) <= len(str(found.plain))
    float_bytes = found.plain.stat().st_size + found.plain.with_name("tokenizer.json").stat().st_size
    assert found.row("float32").size.file_bytes == pytest.approx(float_bytes, rel=1e-3)  # the tokenizer is inside


@pytest.mark.parametrize("name", ["float32", *FORMATS])
def test_cache_bytes_are_those_of_the_cache_after_so_many_tokens(name: str, found: Found) -> None:
    model = open_compiled(str(found.compiled.get(name, found.plain)), threads=1)
    cache = generation.Cache(model.session, model.name)
    cache.step(range(DECODE))
    assert found.row(name).size.kv_bytes_per_token == cache.nbytes / DECODE


def test_a_cache_that_stays_in_float_is_a_note(found: Found) -> None:
    (note,) = (note for note in found.report.notes if note.formats == ("nvfp4",))
    assert "stay in float in the cache: keys in nvfp4 share a scale over all tokens" in note.text


def test_everything_was_timed(found: Found) -> None:
    for row in found.report.rows:
        assert all(value is not None and value > 0 for value in dataclasses.astuple(row.speed))
    assert (found.report.prefill, found.report.decode, found.report.steps) == (PREFILL, DECODE, 16)


def test_two_models_are_open_at_once_and_no_more(found: Found) -> None:
    assert found.most_open == 2


def test_the_page_of_documentation_names_every_key(found: Found) -> None:
    text = (Path(__file__).parents[2] / "docs" / "compare.md").read_text("utf-8")
    rows = re.findall(r"^\| [^|]*\| (`.+`) \|", text, re.MULTILINE)
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert named == {*found.report.rows[0].to_dict()} - {"format"}
    assert all(f"`{key}`" in text for key in found.report.to_dict())


def test_csv_and_json_have_the_same_figures(found: Found) -> None:
    content = json.loads(json.dumps(found.report.to_dict()))
    rows = list(csv.DictReader(io.StringIO(to_csv(found.report))))
    assert len(rows) == len(content["rows"]) == 4
    for read, row in zip(rows, content["rows"], strict=True):
        assert list(read) == list(row)
        assert read.pop("format") == row.pop("format")
        assert {key: float(value) if value else None for key, value in read.items()} == row
    assert content["rows"][0]["sqnr_db"] is None  # infinite
    assert (content["unit"], content["prefill"], content["decode"]) == ("token", PREFILL, DECODE)
    assert content["notes"][0]["formats"] == ["dint3"]


def test_tables_have_a_column_for_every_figure_that_a_decoder_is_judged_by(found: Found) -> None:
    keys = [key for _, key, _ in (*quality_columns(found.report), *cost_columns(found.report))]
    assert keys[:4] == ["perplexity", "perplexity_increase", "kl", "flip_rate"]
    assert keys[4:8] == ["bits_per_quantized_weight", "bits_per_weight", "file_bytes", "kv_bytes_per_token"]
    assert keys[8:11] == ["prefill_energy_pj_per_token", "decode_energy_pj_per_token", "area_um2"]
    assert keys[11:] == [
        "prefill_tokens_per_second",
        "prefill_speedup",
        "decode_tokens_per_second",
        "decode_speedup",
    ]
    lines = explanations(found.report)
    assert "energy a token of a prefill of 24 tokens and a step behind 40, on edge-npu in freepdk45" in lines[0]
    assert "threads: 1, median of 2 rounds" in lines[1]


# Other models --------------------------------------------------------------------------------------------------------


def test_an_encoder_has_no_perplexity_no_cache_and_no_decoding(
    text: Path, exported_model_folder: Callable[[str], Path]
) -> None:
    source = exported_model_folder("bert") / "model.onnx"
    given = options(text, seq_len=16)
    report = compare(str(source), CompareOptions(("mxfp4",), attention=False, rounds=1), given)
    assert (report.kind, report.unit, report.decode) == ("token classifier", "token", None)
    assert report.prefill == POSITIONS // 2
    for row in report.rows:
        assert (row.quality.perplexity, row.quality.flip_rate, row.size.kv_bytes_per_token) == (None, None, None)
        assert row.cost.decode_energy_pj_per_token is row.speed.decode_tokens_per_second is None
        assert row.speed.prefill_tokens_per_second is not None
    heads = [head for head, _, _ in quality_columns(report)]
    assert heads == ["KL", "top-1", "cosine", "SQNR", "bits", "of all", "file"]
    assert report.notes == ()
    with pytest.raises(ConfigError, match=r"--decode: .* has no key-value cache; leave it out"):
        compare(str(source), CompareOptions(("mxfp4",), decode=8), given)


def test_a_vision_model_is_measured_by_the_sample(
    text: Path, exported_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    source = exported_model_folder("vit") / "model.onnx"
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "images.npz", pixel_values=images)
    given = options(text, data=(str(tmp_path / "images.npz"),), seq_len=None)
    report = compare(str(source), CompareOptions(("mxfp4",), rounds=1), given)
    assert (report.kind, report.unit, report.prefill, report.decode) == ("classifier", "sample", None, None)
    dims = {"batch_size": 1, "num_channels": 3, "height": 32, "width": 32}
    (run,) = report_model("", read_model(source), dims=dims).phases
    assert report.rows[0].cost.prefill_energy_pj_per_token == run.total.energy_pj
    assert [head for head, _, _ in cost_columns(report)][-2:] == ["run\nsamples/s", "of\nfloat"]
    with pytest.raises(ConfigError, match=r"--prefill: .* takes pixel_values, not tokens alone"):
        compare(str(source), CompareOptions(("mxfp4",), prefill=8), given)


def test_a_decoder_without_a_cache_still_has_a_perplexity(text: Path, tiny_model_folder: Callable[[str], Path]) -> None:
    given = options(text, task="text-generation", seq_len=16)
    report = compare(str(tiny_model_folder("llama")), CompareOptions(("mxfp4",), rounds=0), given)
    assert (report.kind, report.decode) == ("decoder", None)
    assert report.rows[1].quality.perplexity is not None
    assert report.rows[1].speed.prefill_tokens_per_second is None


def test_products_and_technology_can_be_chosen(
    text: Path, exported_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    source, own = exported_model_folder("llama") / "model.onnx", str(technology_file(tmp_path))
    chosen: dict[str, Any] = {"include": ("*layers.0/mlp/*",), "exclude": ("*down_proj",), "technology": own}
    wanted = CompareOptions(("mxfp4",), prefill=8, decode=8, rounds=0, **chosen)
    report = compare(str(source), wanted, options(text, seq_len=16, prompts=0))
    layer = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN // 2 + 3 * HIDDEN * MLP  # half as many heads of keys
    elements, quantized = LAYERS * layer + HIDDEN * VOCABULARY, 2 * HIDDEN * MLP
    size = report.rows[1].size
    assert size.bits_per_weight == pytest.approx((4.25 * quantized + 32 * (elements - quantized)) / elements)
    assert size.kv_bytes_per_token == report.rows[0].size.kv_bytes_per_token
    prefill, _ = report_model("", read_model(source), technology=own, prefill=8, decode=8).phases
    assert report.rows[0].cost.area_um2 == prefill.total.area_um2


def test_layers_of_a_cache_that_are_not_packed_count_as_float() -> None:
    pasts = [Past(f"past_key_values.{layer}.key", ("batch_size", 2, "past", 64), 4) for layer in range(2)]
    packed = {"key": {"format": "amxfp4", "axis": "head_dim"}, "exceptions": {"past_key_values.1.key": None}}
    float_bytes = 2 * 10 * 64 * 4
    assert cache_bytes(pasts, None, 10) == 2 * float_bytes
    assert cache_bytes(pasts, packed, 10) == 2 * 10 * 64 * get_format("amxfp4").bits_per_element / 8 + float_bytes


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ()}, "--formats names none"),
        ({"formats": ("mxfp4", "amxfp4", "mxfp4")}, "--formats names mxfp4 twice"),
        ({"formats": ("amxfp4", "amxfp4_b32")}, "--formats names amxfp4 twice"),
        ({"formats": ("none",)}, "the original is always the first row"),
        ({"prefill": 0}, "--prefill is 0: at least 1 is allowed"),
        ({"decode": 0}, "--decode is 0: at least 1 is allowed"),
        ({"rounds": -1}, "--rounds is -1: at least 0 is allowed"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CompareOptions(**settings)


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FormatError, match="unknown format 'fp3': known are amxfp4"):
        CompareOptions(("fp3",))


def test_an_unknown_engine_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(CostModelError, match="toaster"):
        compare(str(tmp_path / "missing.onnx"), CompareOptions(engine="toaster"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (CompareOptions(prefill=65), r"--prefill 65 is beyond the 64 positions of .*; at most 64 is allowed"),
        (CompareOptions(decode=64), r"--decode 64 is beyond the 64 positions of .*; at most 63 is allowed"),
    ],
)
def test_lengths_beyond_the_model_are_told_before_anything_is_compiled(
    wanted: CompareOptions, message: str, text: Path, exported_model_folder: Callable[[str], Path]
) -> None:
    source = str(exported_model_folder("llama") / "model.onnx")
    phases: list[str] = []
    with pytest.raises(ConfigError, match=message):
        compare(source, wanted, options(text, seq_len=16), progress=lambda phase, *_: phases.append(phase))
    assert phases
    assert not any("compiling" in phase for phase in phases)


def test_a_format_that_fails_is_named(tmp_path: Path, text: Path, exported_model_folder: Callable[[str], Path]) -> None:
    source = str(exported_model_folder("llama") / "model.onnx")
    wanted = CompareOptions(("mxfp4", "int8"), include=("nothing",))
    with pytest.raises(ConfigError, match=r"^mxfp4: --include 'nothing' matches no layer"):
        compare(source, wanted, options(text, seq_len=16))


def test_a_format_that_overflows_is_told_before_the_others_are_measured(
    text: Path, exported_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """A weight in the last eighth of float32's range, which mxfp4_even rounds beyond it."""
    folder = shutil.copytree(exported_model_folder("llama"), tmp_path / "large")
    model = read_model(folder / "model.onnx")
    (node,) = (node for node in model.graph if node.name == "/model/layers.1/mlp/down_proj/MatMul")
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    values = weight.const_value.numpy().copy()
    values[0, 0] = 3.2e38
    weight.const_value = ir.tensor(values)
    write_model(model, folder / "large.onnx")
    phases: list[str] = []
    wanted, given = CompareOptions(("amxfp4", "mxfp4_even")), options(text, seq_len=16)
    with pytest.raises(MxCompileError, match=r"^mxfp4_even: .*: its logits are not finite"):
        compare(str(folder / "large.onnx"), wanted, given, progress=lambda phase, *_: phases.append(phase))
    assert phases[-1] == "mxfp4_even: first run"
    assert not any("windows" in phase for phase in phases)


def test_an_encoder_decoder_is_refused(text: Path, exported_model_folder: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedModelError, match="is an encoder-decoder"):
        compare(str(exported_model_folder("t5")), CompareOptions())
