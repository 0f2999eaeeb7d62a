"""Random inputs for any exported model, by the names that optimum gives them."""

import numpy as np
import onnxruntime
from tiny_models import VOCABULARY

BATCH, SEQUENCE, PAST, IMAGE = 2, 7, 5, 32
_DIMS = {"batch_size": BATCH, "sequence_length": SEQUENCE, "num_channels": 3, "height": IMAGE, "width": IMAGE}


def random_feeds(
    session: onnxruntime.InferenceSession, *, past: int = PAST, cached: bool = True
) -> dict[str, np.ndarray]:
    """Feeds for one run: token ids, masks, positions, a random past of ``past`` tokens, hidden states, pixels.

    ``cached`` is what a merged decoder of an encoder-decoder gets as ``use_cache_branch``.
    """
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for each in session.get_inputs():
        name = each.name
        if name == "use_cache_branch":
            feeds[name] = np.array([cached])
        elif name.startswith("past_key_values"):
            feeds[name] = rng.standard_normal([_past_dim(dim, past) for dim in each.shape]).astype(np.float32)
        elif name == "attention_mask":
            feeds[name] = np.ones((BATCH, SEQUENCE + (past if _has_past(session) else 0)), np.int64)
        elif name in ("encoder_attention_mask", "token_type_ids"):
            feeds[name] = np.full((BATCH, SEQUENCE), int(name == "encoder_attention_mask"), np.int64)
        elif name == "position_ids":
            feeds[name] = np.tile(np.arange(past, past + SEQUENCE), (BATCH, 1))
        elif name in ("input_ids", "decoder_input_ids"):
            feeds[name] = rng.integers(3, VOCABULARY, (BATCH, SEQUENCE))
        else:  # pixel_values, encoder_hidden_states
            dims = [dim if isinstance(dim, int) else _DIMS.get(dim, SEQUENCE) for dim in each.shape]
            feeds[name] = rng.standard_normal(dims).astype(np.float32)
    return feeds


def _has_past(session: onnxruntime.InferenceSession) -> bool:
    return any(each.name.startswith("past_key_values") for each in session.get_inputs())


def _past_dim(dim: int | str, past: int) -> int:
    if isinstance(dim, int):
        return dim
    return BATCH if dim == "batch_size" else SEQUENCE if dim.startswith("encoder") else past
