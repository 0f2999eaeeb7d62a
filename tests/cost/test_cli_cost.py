"""``mxcompile cost``: what it prints and writes, and what it says to wrong input."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import models
import onnx
import onnx_ir as ir
import pytest
from cache_models import attention
from click.testing import CliRunner, Result
from command_line import assert_error
from cost_models import technology_file

from mxcompile.cli import CommandGroup
from mxcompile.commands.cost import cost_command
from mxcompile.compiler import compile_model
from mxcompile.onnx_file import write_model
from mxcompile.passes import AttachFunctions, FuseMatMulBlock, PackCache

Cost = Callable[..., Result]
GROUP = CommandGroup("mxcompile", commands=[cost_command])
SIZES = ("--dim", "b=1", "--dim", "s=32")
"""The dimensions of `models.decoder`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``float.onnx``, ``layer.onnx`` compiled from it, a decoder's ``cache.onnx``, and unit costs."""
    made = tmp_path_factory.mktemp("cost")
    write_model(models.decoder(), made / "float.onnx")
    compile_model(made / "float.onnx", output=made / "layer.onnx")
    cached = attention()
    cached.graph.inputs[0].shape = ir.Shape([1, 1, 1, "past_sequence_length + sequence_length"])
    for each in (PackCache(), FuseMatMulBlock(), AttachFunctions()):
        each(cached)
    write_model(cached, made / "cache.onnx")
    technology_file(made)
    return made


@pytest.fixture
def cost(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cost:
    """``mxcompile cost`` in a copy of `folder`, with round unit costs."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        own = () if "--technology" in arguments else ("--technology", "round.toml")
        return CliRunner().invoke(GROUP, ["cost", *arguments, *own])

    return run


def parsed(result: Result) -> dict:
    """The JSON object that was printed."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_json_is_one_object_with_total_and_nodes(cost: Cost) -> None:
    content = parsed(cost("layer.onnx", "--json", *SIZES))
    assert isinstance(content["total"]["macs"], int)
    assert isinstance(content["total"]["energy_pj"], float)
    assert content["total"]["macs"] == sum(node["macs"] for node in content["nodes"]) > 0
    assert content == parsed(cost("layer.onnx", "--format", "json", *SIZES))


def test_every_quantized_product_runs_on_its_unit(cost: Cost) -> None:
    nodes = {node["name"]: node for node in parsed(cost("layer.onnx", "--json", *SIZES))["nodes"]}
    for layer in models.DECODER_LAYERS:
        (node,) = (node for name, node in nodes.items() if name.startswith(f"{layer}/MatMul"))
        assert node["unit"] == "amxfp4_tagged"
        assert node["quantized"] == 32 * (80 if layer.endswith("down_proj") else 40)
    assert nodes["/head/MatMul"]["unit"] == "fp16"


def test_a_decoder_with_a_cache_has_a_prefill_and_a_step(cost: Cost) -> None:
    content = parsed(cost("cache.onnx", "--json", "--prefill", "64", "--decode", "96", "--batch", "2"))
    assert list(content["phases"]) == ["prefill", "decode"]
    assert content["total"]["tokens"] == 2 * 64
    step = content["phases"]["decode"]
    assert step["dims"] == {"batch_size": 2, "sequence_length": 1, "past_sequence_length": 96}
    assert step["total"]["cache_bytes"] > 0


def test_more_tokens_cost_more(cost: Cost) -> None:
    costs = [parsed(cost("cache.onnx", "--json", "--prefill", n))["total"] for n in ("32", "64")]
    assert costs[1]["energy_pj"] > costs[0]["energy_pj"]
    assert costs[1]["latency_us"] > costs[0]["latency_us"]


def test_a_model_in_floating_point_has_a_cost_too(cost: Cost) -> None:
    content = parsed(cost("float.onnx", "--json", *SIZES))
    assert {node["unit"] for node in content["nodes"]} == {"", "fp16"}


def test_the_comparison_lists_the_formats(cost: Cost) -> None:
    content = parsed(cost("layer.onnx", "--json", *SIZES, "--compare", "mxfp4, float16"))
    assert [each["format"] for each in content["compare"]] == ["mxfp4", "float16"]


def test_the_table_names_its_figures_origins(cost: Cost) -> None:
    text = cost("layer.onnx", *SIZES, "--top", "1").stdout
    for part in ("layer.onnx on edge-npu in round", "energy per token", "units: measured; round", "Horowitz"):
        assert part in text


def test_csv_has_a_line_for_each_node(cost: Cost) -> None:
    rows = list(csv.DictReader(io.StringIO(cost("layer.onnx", "--format", "csv", *SIZES).stdout)))
    assert len(rows) == len(parsed(cost("layer.onnx", "--json", *SIZES))["nodes"])


@pytest.mark.parametrize("form", ["table", "json", "csv", "html"])
def test_a_report_is_written_whole_and_replaced_only_by_force(cost: Cost, form: str) -> None:
    result = cost("layer.onnx", "--format", form, "-o", "out", *SIZES)
    assert (result.exit_code, result.stdout) == (0, "")
    first = Path("out").read_text("utf-8")
    assert len(first) > 100
    assert_error(cost("layer.onnx", "--format", form, "-o", "out", *SIZES), "out: exists already", "--force")
    assert cost("layer.onnx", "--format", form, "-o", "out", "--force", *SIZES).exit_code == 0
    assert Path("out").read_text("utf-8") == first


def test_an_annotated_model_is_written_beside(cost: Cost) -> None:
    assert cost("cache.onnx", "--annotate", "annotated.onnx").exit_code == 0
    model = onnx.load("annotated.onnx")
    keys = {entry.key for node in model.graph.node for entry in node.metadata_props}
    assert {"mxcompile.cost.energy_pj", "mxcompile.cost.decode.energy_pj"} <= keys
    assert_error(cost("cache.onnx", "--annotate", "annotated.onnx"), "exists already")
    assert_error(cost("cache.onnx", "--annotate", "cache.onnx", "--force"), "is the model")


def test_the_only_model_of_a_folder_is_taken(cost: Cost) -> None:
    Path("folder").mkdir()
    assert_error(cost("folder", *SIZES), "folder: has no .onnx file")
    Path("layer.onnx").rename("folder/model.onnx")
    assert parsed(cost("folder", "--json", *SIZES))["model"] == "model.onnx"
    Path("float.onnx").rename("folder/other.onnx")
    assert_error(cost("folder", *SIZES), "name one of them")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("layer.onnx", "--dim", "b=1"), ("dimension s has no value", "--dim")),
        (("layer.onnx", *SIZES, "--dim", "seq=1"), ("no dimension 'seq'", "b, s")),
        (("layer.onnx", "--dim", "b"), ("NAME=NUMBER is expected",)),
        (("layer.onnx", "--dim", "b=-1"), ("NAME=NUMBER is expected",)),
        (("layer.onnx", "--decode", "1"), ("no dimension of cached tokens",)),
        (("layer.onnx", *SIZES, "--technology", "tsmc3"), ("unknown technology 'tsmc3'",)),
        (("layer.onnx", *SIZES, "--engine", "tpu"), ("unknown engine 'tpu'",)),
        (("layer.onnx", *SIZES, "--compare", "mxfp5"), ("mxfp5",)),
        (("layer.onnx", *SIZES, "--compare", "nvfp4"), ("needs the unit 'nvfp4'",)),
        (("float.onnx", *SIZES, "--compare", "mxfp4"), ("no product of the model is quantized",)),
        (("none.onnx",), ("none.onnx",)),
        (("layer.onnx", *SIZES, "-o", "missing/out"), ("cannot be written to",)),
        (("layer.onnx", *SIZES, "--annotate", "missing/out.onnx"), ("there is no folder",)),
    ],
)
def test_wrong_input_is_one_line_that_says_what_to_do(
    cost: Cost, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    assert_error(cost(*arguments), *parts)


def test_a_model_without_a_product_is_an_error(cost: Cost) -> None:
    relu = models.parse("y = Relu(x)", "float[2,3] x", "float[2,3] y", {})
    write_model(relu, Path("relu.onnx"))
    assert_error(cost("relu.onnx"), "no node of the model multiplies")


def test_an_operator_without_a_formula_is_reported(cost: Cost) -> None:
    weights = models.random_weights(w=[8, 8])
    odd = models.parse("t = MatMul(x, w) y = Det(t)", "float[8,8] x", "float y", weights)
    write_model(odd, Path("odd.onnx"))
    (found,) = parsed(cost("odd.onnx", "--json"))["coverage"]["uncovered"]
    assert found["op_type"] == "Det"
    assert "not covered: 1 Det" in cost("odd.onnx").stdout


@pytest.mark.parametrize("arguments", [(), ("layer.onnx", "--prefill", "0"), ("layer.onnx", "--format", "xml")])
def test_wrong_usage_exits_with_2(cost: Cost, arguments: tuple[str, ...]) -> None:
    assert cost(*arguments).exit_code == 2


def test_the_model_is_not_changed(cost: Cost) -> None:
    before = Path("layer.onnx").read_bytes()
    assert cost("layer.onnx", *SIZES).exit_code == 0
    assert Path("layer.onnx").read_bytes() == before
