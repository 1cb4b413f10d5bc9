"""What do tests of wrong calls share? A right call to spoil, and what a refusal must say."""

# ruff: noqa: E501  (a call is a line)
import re

import numpy as np
import pytest

import attnext

RNG = np.random.default_rng(0)
BATCH, HEADS_Q, HEADS_K, SEQLEN_Q, SEQLEN_K, DIM, DIM_V = 2, 4, 2, 5, 7, 8, 6


def floats(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


def base():
    return {
        "q": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM),
        "k": floats(BATCH, HEADS_K, SEQLEN_K, DIM),
        "v": floats(BATCH, HEADS_K, SEQLEN_K, DIM_V),
    }


PACKED = {
    "q": floats(6, HEADS_Q, DIM), "k": floats(9, HEADS_K, DIM), "v": floats(9, HEADS_K, DIM_V), "layout": "thd",
    "cu_seqlens_q": np.array([0, 2, 6]), "cu_seqlens_k": np.array([0, 4, 9]),
}  # fmt: skip
PAGED = {
    "k": floats(5, 4, HEADS_K, DIM), "v": floats(5, 4, HEADS_K, DIM_V),
    "kv_lengths": np.array([7, 3]), "block_table": np.array([[0, 2], [4, -1]], np.int32),
}  # fmt: skip
ADDITIVE = attnext.AdditiveScore
HUGE = np.broadcast_to(np.float32(0), (2**40,))  # of 4 bytes, unless someone copies it


def complain(call, error, argument):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.match(r"\w+: ", message), f"{message!r} does not name the function"
    assert re.search(rf"\b({argument})", message), f"{message!r} does not name {argument}"
    assert len(message) > 15, f"{message!r} explains nothing"


def like_results(**change):
    dout, lse = floats(BATCH, HEADS_Q, SEQLEN_Q, DIM_V), floats(BATCH, HEADS_Q, SEQLEN_Q)
    return {"dout": dout, **base(), "out": dout, "lse": lse} | change


def both_directions(**change):
    q, k, v_k = base().values()
    return {"q": q, "k": k, "v_q": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM), "v_k": v_k} | change


# The function, its arguments, and how the message begins: nothing of the calls it is made of.
