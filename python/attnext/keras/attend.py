"""What do the layers share? One call of attention, with Keras's way of dropping and of scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from . import backends


class Attended(NamedTuple):
    """The result, and on request the weights before and after dropout, (B, H, Tq, Tv)."""

    out: Any
    weights: Any = None
    dropped: Any = None


def attend(
    q: Any, k: Any, v: Any, *, are_weights_wanted: bool, dropout: float, generator: Any,
    **options: Any,
) -> Attended:  # fmt: skip
    """Attention of tensors (B, T, H, D), diagonals from the first query and key, as in Keras.

    Weights that are wanted are formed: only then is there anything of the size of Tq times Tv.
    """
    options |= {"layout": "bshd", "q_offset": 0}
    if not are_weights_wanted:
        if dropout > 0:
            options |= {"dropout": dropout, "seed": backends.draw_seed(generator)}
        return Attended(backends.attention(q, k, v, **options))
    weights = backends.attention_weights(q, k, **options)
    if not dropout > 0:
        return Attended(backends.attention(q, k, v, **options), weights, weights)
    dropped = keras.random.dropout(weights, dropout, seed=generator)
    return Attended(ops.einsum("bhqk,bkhd->bqhd", dropped, v), weights, dropped)
