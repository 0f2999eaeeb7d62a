"""Multiply-accumulates against an independent witness: torch's FlopCounterMode on the same Hugging Face models."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from mxcompile.cost.workload import Workload, count
from mxcompile.onnx_file import read_model

BATCH, TOKENS, PAST, IMAGE, SOURCE = 2, 7, 5, 32, 6
FLOPS_PER_MAC = 2
"""What the counter takes a multiply-accumulate for."""

Folder = Callable[[str], Path]


def counted(workload: Workload, dims: Mapping[str, int]) -> int:
    """The multiply-accumulates of a run, none of it uncovered."""
    assert workload.uncovered == ()
    return sum(node.macs for node in workload.at(dims).nodes)


def measured(run: Callable[[], Any]) -> int:
    """The multiply-accumulates that torch counts in a run."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    flops = counter.get_total_flops()
    assert flops % FLOPS_PER_MAC == 0
    return flops // FLOPS_PER_MAC


def tokens(length: int) -> Any:
    return torch.randint(3, tiny_models.VOCABULARY, (BATCH, length))


def cache(model: Any, length: int) -> Any:
    """All that a run over ``length`` tokens leaves: a cache of sliding windows would keep less than the graph."""
    with torch.no_grad():
        kept = transformers.DynamicCache()
        return model(input_ids=tokens(length), past_key_values=kept, use_cache=True).past_key_values


@pytest.mark.parametrize("name", tiny_models.DECODERS)
def test_a_prefill_and_a_step_of_a_decoder_have_the_macs_that_torch_counts(
    name: str, tiny_model_folder: Folder, exported_model_folder: Folder
) -> None:
    model = tiny_models.load(tiny_model_folder(name))
    workload = count(read_model(exported_model_folder(name) / "model.onnx"))
    for length, past in ((TOKENS, 0), (1, PAST)):
        kept = cache(model, past) if past else None
        inputs = {"input_ids": tokens(length), "past_key_values": kept, "use_cache": kept is not None}
        if "position_ids" in workload.inputs:  # else torch makes rotary angles of one sequence for all
            inputs["position_ids"] = torch.arange(past, past + length).repeat(BATCH, 1)
        dims = {"batch_size": BATCH, "sequence_length": length, "past_sequence_length": past}
        assert counted(workload, dims) == measured(functools.partial(model, **inputs))


@pytest.mark.parametrize("name", [name for name in tiny_models.ENCODERS if name != "vit"])
def test_a_text_encoder_has_the_macs_that_torch_counts(
    name: str, tiny_model_folder: Folder, exported_model_folder: Folder
) -> None:
    model = tiny_models.load(tiny_model_folder(name))
    workload = count(read_model(exported_model_folder(name) / "model.onnx"))
    want = measured(
        lambda: model(input_ids=tokens(TOKENS), attention_mask=torch.ones(BATCH, TOKENS, dtype=torch.int64))
    )
    assert counted(workload, {"batch_size": BATCH, "sequence_length": TOKENS}) == want


def test_a_vision_encoder_has_the_macs_that_torch_counts(
    tiny_model_folder: Folder, exported_model_folder: Folder
) -> None:
    model = tiny_models.load(tiny_model_folder("vit"))
    workload = count(read_model(exported_model_folder("vit") / "model.onnx"))
    want = measured(lambda: model(pixel_values=torch.zeros(BATCH, 3, IMAGE, IMAGE)))
    assert counted(workload, {"batch_size": BATCH, "height": IMAGE, "width": IMAGE}) == want


def test_two_towers_have_the_macs_that_torch_counts(
    tiny_model_folder: Folder, exported_model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fused operator of torch.nn.MultiheadAttention is not in the counter.
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    model = tiny_models.load(tiny_model_folder("siglip"))
    workload = count(read_model(exported_model_folder("siglip") / "model.onnx"))
    images = torch.zeros(BATCH, 3, IMAGE, IMAGE)
    want = measured(lambda: model(input_ids=tokens(TOKENS), pixel_values=images))
    sizes = {"sequence_length": TOKENS, "height": IMAGE, "width": IMAGE}
    assert counted(workload, {**sizes, "text_batch_size": BATCH, "image_batch_size": BATCH}) == want


@pytest.mark.parametrize("name", tiny_models.ENCODER_DECODERS)
def test_an_encoder_and_both_branches_of_its_merged_decoder_have_the_macs_that_torch_counts(
    name: str, tiny_model_folder: Folder, exported_model_folder: Folder
) -> None:
    model = tiny_models.load(tiny_model_folder(name))
    encoder = model.get_encoder()
    source, mask = tokens(SOURCE), torch.ones(BATCH, SOURCE, dtype=torch.int64)
    with torch.no_grad():
        hidden = encoder(input_ids=source, attention_mask=mask)
    workload = count(read_model(exported_model_folder(name) / "encoder_model.onnx"))
    dims = {"batch_size": BATCH, "encoder_sequence_length": SOURCE}
    assert counted(workload, dims) == measured(lambda: encoder(input_ids=source, attention_mask=mask))

    def run(length: int, past: Any = None) -> Any:
        ids = tokens(length)
        return model(decoder_input_ids=ids, encoder_outputs=hidden, attention_mask=mask, past_key_values=past)

    workload = count(read_model(exported_model_folder(name) / "decoder_model_merged.onnx"))
    with torch.no_grad():
        kept = run(PAST).past_key_values
    for length, past in ((TOKENS, 0), (1, PAST)):
        sizes = {"decoder_sequence_length": length, "past_decoder_sequence_length": past}
        want = measured(functools.partial(run, length, kept if past else None))
        assert counted(workload, {**dims, **sizes}) == want
