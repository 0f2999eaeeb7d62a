"""Trains the demo model again: a small Llama on the source text of the running interpreter's standard library.

Usage::

    python examples/train_demo_model.py --output my-demo-model  # one hour, as the one in demo-model/
    python examples/train_demo_model.py --output my-demo-model --steps 30

Needs torch, transformers and tokenizers (the extra ``export``). The files in demo-model/heldout_files.json are left
out. With the same interpreter, versions and ``--steps`` two runs see the same windows in the same order; with
``--minutes`` the learning rate follows the clock, so that the end of the schedule is reached on any machine.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from heldout import held_out_files, standard_library

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
VOCABULARY = 2048
WINDOW = 256
BATCH = 12
PEAK_RATE = 3e-3
FINAL_FRACTION = 0.05
WARM_UP_STEPS = 100
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
SEED = 0


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or minutes on the clock."""

    steps: int | None
    minutes: float

    def progress(self, step: int, start: float) -> float:
        """Fraction of the training that is done before `step`; 1 or more at the end."""
        if self.steps is not None:
            return step / self.steps
        return (time.monotonic() - start) / (60 * self.minutes)


def read_corpus(root: Path, held_out: Iterable[str]) -> list[str]:
    """Texts of all Python files below `root` that are UTF-8, without third-party packages and the held-out files."""
    excluded = {root / name for name in held_out}
    texts = []
    for path in sorted(root.rglob("*.py")):
        if path in excluded or {"site-packages", "dist-packages"} & set(path.relative_to(root).parts):
            continue
        try:
            texts.append(path.read_text("utf-8"))
        except UnicodeDecodeError:  # the tests of the decoder itself
            continue
    return texts


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> "Tokenizer":
    """A byte-level BPE tokenizer: the three special tokens, the 256 bytes, and merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode_corpus(tokenizer: "Tokenizer", texts: Iterable[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Ids of all texts, one after the other, int64 ``[tokens]``."""
    return np.concatenate([np.array(encoding.ids, np.int64) for encoding in tokenizer.encode_batch(list(texts))])


def model_config() -> "LlamaConfig":
    """The demo model's dimensions: 4.0 million parameters."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2 * WINDOW,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up over the first steps, times a linear decay from the peak to 5% of it."""
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    return PEAK_RATE * warm_up * (1 - (1 - FINAL_FRACTION) * min(1.0, progress))


def windows(ids: np.ndarray[Any, np.dtype[np.int64]], batch: int = BATCH) -> Iterator["torch.Tensor"]:
    """Batches of windows at random places, int64 ``[batch, WINDOW]``, without end."""
    import torch

    generator = np.random.default_rng(SEED)
    while True:
        starts = generator.integers(0, len(ids) - WINDOW + 1, batch)
        yield torch.from_numpy(np.stack([ids[start : start + WINDOW] for start in starts]))


def make_optimizer(model: "LlamaForCausalLM") -> "torch.optim.AdamW":
    """AdamW that decays the matrices and leaves the gains of the norms alone."""
    import torch

    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=BETAS)


def train(ids: np.ndarray[Any, np.dtype[np.int64]], budget: Budget) -> "LlamaForCausalLM":
    """Trains a model from scratch and prints the loss now and then.

    Args:
        ids: The corpus, int64 ``[tokens]``.
        budget: When to stop.
    """
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(SEED)
    model = LlamaForCausalLM(model_config())
    model.train()
    optimizer = make_optimizer(model)
    start = time.monotonic()
    step = 0
    average = 0.0
    for batch in windows(ids):
        progress = budget.progress(step, start)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, progress)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        if step % 10 == 0:
            print(f"\r{progress:4.0%}  step {step}  loss {average:.3f}", end="", flush=True)
        step += 1
    seconds = time.monotonic() - start
    print(f"\r100%  {step} steps of {BATCH * WINDOW} tokens in {seconds:.0f} s: loss {average:.3f}")
    return model


def save(model: "LlamaForCausalLM", tokenizer: "Tokenizer", output: Path) -> None:
    """Writes a Hugging Face folder: the model in bfloat16, configurations, the tokenizer."""
    import torch
    from transformers import PreTrainedTokenizerFast

    model.to(torch.bfloat16).save_pretrained(output)  # type: ignore[arg-type]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    ).save_pretrained(output)


def main() -> None:
    """Reads the corpus, trains tokenizer and model, and writes the folder."""
    parser = argparse.ArgumentParser(description="train the demo model again from the standard library's source text")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model; must not exist")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time (default: 60)")
    parser.add_argument("--steps", type=int, help="number of steps, instead of --minutes")
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or (arguments.steps is not None and arguments.steps < 1):
        parser.error("--minutes and --steps must be positive")
    if arguments.output.exists():
        parser.error(f"--output {arguments.output}: exists already; choose another folder")
    root = standard_library()
    texts = read_corpus(root, held_out_files())
    print(f"{root}: {len(texts)} files, {sum(map(len, texts)) / 1e6:.1f} million characters")
    tokenizer = train_tokenizer(texts)
    ids = encode_corpus(tokenizer, texts)
    print(f"{len(ids) / 1e6:.1f} million tokens of {VOCABULARY} kinds")
    save(train(ids, Budget(arguments.steps, arguments.minutes)), tokenizer, arguments.output)
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
