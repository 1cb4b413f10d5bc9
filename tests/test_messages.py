"""Do all functions refuse wrong calls in their own words? Calls as data, a line each."""

# ruff: noqa: E501  (a call is a line)
import numpy as np
import pytest

import attnext
from refusals import (
    ADDITIVE,
    BATCH,
    DIM,
    DIM_V,
    HEADS_K,
    HEADS_Q,
    PACKED,
    PAGED,
    SEQLEN_K,
    SEQLEN_Q,
    base,
    both_directions,
    complain,
    floats,
    like_results,
)

OTHER_CALLS = [
    ("rows beyond the last", ValueError, "rows", lambda: attnext.attention_weights(base()["q"], base()["k"], rows=[SEQLEN_Q])),
    ("fractional rows", TypeError, "rows", lambda: attnext.attention_weights(base()["q"], base()["k"], rows=[0.5])),
    ("bool rows", TypeError, "rows .* found bool", lambda: attnext.attention_weights(base()["q"], base()["k"], rows=np.ones(2, bool))),
    ("stats of other keys", ValueError, "k", lambda: attnext.attention_stats(base()["q"], floats(BATCH, HEADS_K, SEQLEN_K, DIM + 1))),
    ("merge of nothing", ValueError, "outs", lambda: attnext.merge_attention([], [])),
    ("merge of None", TypeError, "outs", lambda: attnext.merge_attention(None, None)),
    ("merge without lses", TypeError, "lses", lambda: attnext.merge_attention([floats(1, 1, 2, 3)], None)),
    ("merge of unequal counts", ValueError, "lses", lambda: attnext.merge_attention([floats(1, 1, 2, 3)], [])),
    ("merge of unequal shapes", ValueError, "outs", lambda: attnext.merge_attention([floats(1, 1, 2, 3), floats(1, 1, 2, 4)], [floats(1, 1, 2)] * 2)),
    ("lse of merge", ValueError, "lses", lambda: attnext.merge_attention([floats(1, 1, 2, 3)], [floats(1, 1, 3)])),
    ("shape of dropout_mask", ValueError, "shape", lambda: attnext.dropout_mask((2, -1, 3, 4), 0.5, 1)),
    ("negative axis of dropout_mask", ValueError, r"shape .* found \[2, -1\]", lambda: attnext.dropout_mask((2, -1), 0.5, 1)),
    ("shape beyond 64 bits", ValueError, "shape", lambda: attnext.dropout_mask((2**32, 2**32), 0.5, 1)),
    ("number as shape", TypeError, "shape", lambda: attnext.dropout_mask(5, 0.5, 1)),
    ("negative stream", ValueError, "stream", lambda: attnext.dropout_mask((2, 2), 0.5, 1, stream=-1)),
    ("third stream", ValueError, "stream", lambda: attnext.dropout_mask((2, 2), 0.5, 1, stream=2)),
    ("fractional stream", TypeError, "stream", lambda: attnext.dropout_mask((2, 2), 0.5, 1, stream=0.5)),
    ("text return_lse of vjp", TypeError, "return_lse", lambda: attnext.attention_vjp(**base(), return_lse="no")),
    ("text return_lse of both directions", TypeError, "return_lse", lambda: attnext.bidirectional_attention(**both_directions(), return_lse="no")),
    ("too many threads", ValueError, "count", lambda: attnext.set_num_threads(2**40)),
    ("fractional threads", TypeError, "count", lambda: attnext.set_num_threads(1.5)),
    ("fractional threads of NumPy", TypeError, "count", lambda: attnext.set_num_threads(np.float32(2.7))),
    ("no threads", ValueError, "count", lambda: attnext.set_num_threads(0)),
    ("dropout of dropout_mask", ValueError, "dropout", lambda: attnext.dropout_mask((2, 1, 3, 4), 1.5, 1)),
    ("values of both directions", ValueError, "v_q", lambda: attnext.bidirectional_attention(base()["q"], base()["k"], floats(BATCH, HEADS_K, SEQLEN_Q, DIM), base()["v"])),
    ("pages in both directions", NotImplementedError, "block_table", lambda: attnext.bidirectional_attention(base()["q"], PAGED["k"], base()["q"], PAGED["v"], kv_lengths=PAGED["kv_lengths"], block_table=PAGED["block_table"])),
    ("other rows of v_q", ValueError, "v_q", lambda: attnext.bidirectional_attention(base()["q"], base()["k"], floats(BATCH, HEADS_Q, SEQLEN_Q + 1, DIM), base()["v"])),
    ("lengths of pool", ValueError, "lengths", lambda: attnext.attention_pool(floats(2, 3, 4), floats(4), lengths=[1, 9])),
    ("number as dpooled", ValueError, "dpooled", lambda: attnext.attention_pool_backward(np.float32(2), floats(3, 4), floats(4))),
    ("list as dpooled", TypeError, "dpooled", lambda: attnext.attention_pool_backward([1.0] * 4, floats(3, 4), floats(4))),
    ("list as x", TypeError, "x", lambda: attnext.attention_pool_backward(floats(4), [[1.0] * 4], floats(4))),
    ("fractional seqlen", TypeError, "seqlen", lambda: attnext.sinusoidal_positions(2.5, 3)),
    ("text dim", TypeError, "dim", lambda: attnext.sinusoidal_positions(2, "3")),
    ("fractional heads of slopes", TypeError, "num_heads", lambda: attnext.alibi_slopes(2.0)),
    ("text heads of slopes", TypeError, "num_heads", lambda: attnext.alibi_slopes("3")),
    ("dim of positions", ValueError, "seqlen and dim", lambda: attnext.sinusoidal_positions(4, -1)),
    ("heads of slopes", ValueError, "num_heads", lambda: attnext.alibi_slopes(0)),
]  # fmt: skip


def without_v(**change):
    return {name: x for name, x in (base() | change).items() if name != "v"}


class NoCapsule:
    """Claims to have memory that others can read, and has none."""

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **_):
        return None


TRANSLATED = [
    ("scale_per_head", attnext.attention, base() | {"scale": floats(3)}, "attention: scale must"),
    ("weight", attnext.attention, base() | {"score": ADDITIVE(floats(3))}, r"attention: AdditiveScore\.weight must"),
    ("dtype of weight", attnext.attention, base() | {"score": ADDITIVE(np.ones(DIM, int))}, r"attention: AdditiveScore\.weight must"),
    ("k of backward", attnext.attention_backward, like_results(k=floats(SEQLEN_K, DIM)), "attention_backward: k must have as many axes as q"),
    ("lse of backward", attnext.attention_backward, like_results(lse=floats(BATCH, HEADS_Q)), "attention_backward: lse must have 3 axes"),
    ("dtype of dout", attnext.attention_backward, like_results(dout=np.ones((BATCH, HEADS_Q, SEQLEN_Q, DIM_V), complex)), "attention_backward: dout must be float64"),
    ("seed of backward", attnext.attention_backward, like_results(dropout=0.5), "attention_backward: seed is required"),
    ("pages of backward", attnext.attention_backward, like_results(**PAGED), "attention_backward: block_table is"),
    ("option of backward", attnext.attention_backward, like_results(softcap=-1.0), "attention_backward: softcap must"),
    ("text of weights", attnext.attention_weights, {"q": "queries", "k": "keys"}, "attention_weights: q must be an array"),
    ("rows of weights", attnext.attention_weights, without_v(rows=[SEQLEN_Q]), r"attention_weights: rows must be in \[-5, 5\), found 5"),
    ("score of weights", attnext.attention_weights, without_v(score=ADDITIVE(floats(3))), r"attention_weights: AdditiveScore\.weight must"),
    ("packed weights", attnext.attention_weights, without_v(**PACKED, mask=np.ones((6, 9), bool)), "attention_weights: mask must broadcast"),
    ("paged weights", attnext.attention_weights, without_v(**PAGED, bias=floats(16)), "attention_weights: bias must broadcast"),
    ("layout of stats", attnext.attention_stats, without_v(layout="sbhd"), "attention_stats: layout must"),
    ("option of stats", attnext.attention_stats, without_v(sinks=floats(3)), "attention_stats: sinks must"),
    ("packed stats", attnext.attention_stats, without_v(**PACKED | {"cu_seqlens_k": [0, 4, 99]}), "attention_stats: cu_seqlens_k must end"),
    ("paged stats", attnext.attention_stats, without_v(**PAGED | {"kv_lengths": [9, 3]}), "attention_stats: kv_lengths must"),
    ("merge of nothing", attnext.merge_attention, {"outs": [], "lses": []}, "merge_attention: outs and lses must"),
    ("merge of text", attnext.merge_attention, {"outs": ["out"], "lses": ["lse"]}, "merge_attention: outs must"),
    ("dtype of lses", attnext.merge_attention, {"outs": [floats(2, 3)], "lses": [floats(2, dtype=np.float16)]}, "merge_attention: lses must be float32"),
    ("shape of dropout_mask", attnext.dropout_mask, {"shape": (2, -1), "dropout": 0.5, "seed": 1}, "dropout_mask: shape must"),
    ("seed of dropout_mask", attnext.dropout_mask, {"shape": (2, 2), "dropout": 0.5, "seed": -1}, "dropout_mask: seed must"),
    ("dropout of dropout_mask", attnext.dropout_mask, {"shape": (2, 2), "dropout": 1.5, "seed": 1}, "dropout_mask: dropout must"),
    ("window of explain", attnext.explain, base() | {"window": 3}, "explain: window must"),
    ("k of explain", attnext.explain, base() | {"k": floats(BATCH, HEADS_K, SEQLEN_K, 32)}, "explain: k must have q's head_dim 8, found 32"),
    ("k of vjp", attnext.attention_vjp, base() | {"k": floats(BATCH, HEADS_K, SEQLEN_K, 32)}, "attention_vjp: k must"),
    ("reference", attnext.attention, base() | {"softcap": -1.0, "backend": "reference"}, "attention: softcap must"),
    ("reference of backward", attnext.attention_backward, like_results(softcap=-1.0, backend="reference"), "attention_backward: softcap must"),
    ("reference of weights", attnext.attention_weights, without_v(sinks=floats(3), backend="reference"), "attention_weights: sinks must"),
    ("backend of stats", attnext.attention_stats, without_v(backend="tpu"), "attention_stats: backend must"),
    ("backend of both directions", attnext.bidirectional_attention, both_directions(backend="tpu"), "bidirectional_attention: backend must"),
    ("no capsule", attnext.attention_stats, {"q": NoCapsule(), "k": NoCapsule()}, r"attention_stats: q \(NoCapsule\) has no memory to be read: NoCapsule.__dlpack__\(\) returned no DLPack capsule$"),
    ("k", attnext.bidirectional_attention, both_directions(k=floats(BATCH, HEADS_K, SEQLEN_K, 32)), "bidirectional_attention: k must have q's head_dim 8, found 32"),
    ("v_k", attnext.bidirectional_attention, both_directions(v_k=floats(BATCH, HEADS_K, SEQLEN_K, DIM, dtype=np.float64)), "bidirectional_attention: v_k must have q's dtype float32, found float64"),
    ("v_q", attnext.bidirectional_attention, both_directions(v_q=floats(BATCH, HEADS_Q, SEQLEN_Q, DIM, dtype=np.float64)), "bidirectional_attention: v_q must have k's dtype float32, found float64"),
    ("option", attnext.bidirectional_attention, both_directions(softcap=-1.0), "bidirectional_attention: softcap must"),
    ("values", attnext.attention_pool, {"x": floats(2, 3, 4), "weight": floats(4), "values": floats(2, 5, 4)}, "attention_pool: values must have x's seqlen_k 3, found 5"),
    ("x", attnext.attention_pool, {"x": np.ones((3, 4), int), "weight": floats(4)}, "attention_pool: x must be float"),
    ("weight of pool", attnext.attention_pool, {"x": floats(2, 3, 4), "weight": floats(5)}, "attention_pool: weight must"),
    ("lengths of pool", attnext.attention_pool, {"x": floats(2, 3, 4), "weight": floats(4), "lengths": [1, 9]}, "attention_pool: lengths must"),
    ("dpooled", attnext.attention_pool_backward, {"dpooled": floats(2, 5), "x": floats(2, 3, 4), "weight": floats(4)}, "attention_pool_backward: dpooled must"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "arguments", "begin"),
    [case[1:] for case in TRANSLATED],
    ids=[case[0] for case in TRANSLATED],
)
def test_messages_speak_of_the_function_called(function, arguments, begin):
    refusals = (ValueError, TypeError, NotImplementedError)
    with pytest.raises(refusals, match=f"^{begin}"):
        function(**arguments)


@pytest.mark.parametrize("name", ["dout_q", "dout_k", "out_q", "out_k", "lse_q", "lse_k"])
def test_backward_of_both_directions_names_its_arguments(name):
    inputs = both_directions()
    results = attnext.bidirectional_attention(**inputs, return_lse=True)
    arguments = inputs | dict(zip(("out_q", "out_k", "lse_q", "lse_k"), results, strict=True))
    arguments |= {"dout_q": results[0], "dout_k": results[1]}
    arguments[name] = arguments[name][:, :, 1:]
    with pytest.raises(ValueError, match=rf"^bidirectional_attention_backward: {name} must"):
        attnext.bidirectional_attention_backward(**arguments)


@pytest.mark.parametrize(
    ("error", "argument", "call"),
    [case[1:] for case in OTHER_CALLS],
    ids=[case[0] for case in OTHER_CALLS],
)
def test_other_functions_refuse(error, argument, call):
    complain(call, error, argument)
