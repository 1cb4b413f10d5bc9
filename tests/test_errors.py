"""Is every wrong call refused, naming the argument? Calls as data, a line each."""

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

WRONG_CALLS = [
    # ranks
    ("rank of q", ValueError, "q", {"q": floats(DIM)}),
    ("rank 5", ValueError, "q", {"q": floats(1, 1, 2, 3, 4)}),
    ("rank of k", ValueError, "k", {"k": floats(HEADS_K, SEQLEN_K, DIM)}),
    ("rank of v", ValueError, "v", {"v": floats(SEQLEN_K, DIM_V)}),
    # shapes
    ("batch of k", ValueError, "k", {"k": floats(3, HEADS_K, SEQLEN_K, DIM)}),
    ("batch of v", ValueError, "v", {"v": floats(3, HEADS_K, SEQLEN_K, DIM_V)}),
    ("head_dim of k", ValueError, "k", {"k": floats(BATCH, HEADS_K, SEQLEN_K, DIM + 1)}),
    ("heads of k do not divide", ValueError, "num_heads|heads", {"k": floats(BATCH, 3, SEQLEN_K, DIM), "v": floats(BATCH, 3, SEQLEN_K, DIM_V)}),
    ("no heads of k", ValueError, "k", {"k": floats(BATCH, 0, SEQLEN_K, DIM), "v": floats(BATCH, 0, SEQLEN_K, DIM_V)}),
    ("heads of v", ValueError, "v", {"v": floats(BATCH, 1, SEQLEN_K, DIM_V)}),
    ("length of v", ValueError, "v", {"v": floats(BATCH, HEADS_K, SEQLEN_K + 1, DIM_V)}),
    ("head_dim 0", ValueError, "head_dim", {"q": floats(BATCH, HEADS_Q, SEQLEN_Q, 0), "k": floats(BATCH, HEADS_K, SEQLEN_K, 0)}),
    ("bshd given as bhsd", ValueError, "k|v", {name: np.swapaxes(x, 1, 2) for name, x in base().items()}),
    # dtypes and kinds
    ("int q", TypeError, "q", {"q": np.ones((BATCH, HEADS_Q, SEQLEN_Q, DIM), np.int64)}),
    ("complex q", TypeError, "q", {"q": np.ones((BATCH, HEADS_Q, SEQLEN_Q, DIM), complex)}),
    ("other dtype of k", TypeError, "k", {"k": floats(BATCH, HEADS_K, SEQLEN_K, DIM, dtype=np.float64)}),
    ("other dtype of v", TypeError, "v", {"v": floats(BATCH, HEADS_K, SEQLEN_K, DIM_V, dtype=np.float16)}),
    ("list", TypeError, "q", {"q": [[1.0]]}),
    ("text", TypeError, "k", {"k": "keys"}),
    ("object array", TypeError, "q", {"q": np.empty((BATCH, HEADS_Q, SEQLEN_Q, DIM), object)}),
    ("big-endian", TypeError, "q", {"q": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM).astype(">f4")}),
    ("None", TypeError, "v", {"v": None}),
    # score and scale
    ("unknown score", ValueError, "score", {"score": "manhattan"}),
    ("score of a wrong kind", TypeError, "score", {"score": 3}),
    ("cosine without scale", ValueError, "scale", {"score": "cosine"}),
    ("shape of scale", ValueError, "scale", {"scale": floats(HEADS_Q + 1)}),
    ("dtype of scale", TypeError, "scale", {"scale": np.ones(HEADS_Q, np.int32)}),
    ("text scale", TypeError, "scale", {"scale": "big"}),
    ("NaN scale", ValueError, "scale", {"scale": float("nan")}),
    ("infinite scale", ValueError, "scale", {"scale": float("inf")}),
    ("shape of weight", ValueError, r"AdditiveScore\.weight", {"score": ADDITIVE(floats(DIM + 1))}),
    ("heads of weight", ValueError, "weight", {"score": ADDITIVE(floats(HEADS_K, DIM))}),
    ("dtype of weight", TypeError, "weight", {"score": ADDITIVE(np.ones(DIM, int))}),
    ("shape of score bias", ValueError, r"AdditiveScore\.bias", {"score": ADDITIVE(floats(DIM), floats(DIM - 1))}),
    # visibility
    ("unknown causal", ValueError, "causal", {"causal": "middle"}),
    ("causal of a wrong kind", (TypeError, ValueError), "causal", {"causal": 2.5}),
    ("window of one", (TypeError, ValueError), "window", {"window": (3,)}),
    ("window as a number", (TypeError, ValueError), "window", {"window": 3}),
    ("window below -1", ValueError, r"window\[0\]", {"window": (-2, 0)}),
    ("window of fractions", (TypeError, ValueError), "window", {"window": (1.5, 0)}),
    ("shape of q_offset", ValueError, "q_offset", {"q_offset": np.array([1, 2, 3])}),
    ("fractional q_offset", TypeError, "q_offset", {"q_offset": 1.5}),
    ("dtype of q_offset", TypeError, "q_offset", {"q_offset": floats(BATCH)}),
    # mask and bias
    ("integer mask", TypeError, "mask", {"mask": np.ones((SEQLEN_Q, SEQLEN_K), np.int32)}),
    ("float mask", TypeError, "mask", {"mask": floats(SEQLEN_Q, SEQLEN_K)}),
    ("shape of mask", ValueError, "mask", {"mask": np.ones((SEQLEN_Q, SEQLEN_K + 1), bool)}),
    ("heads of mask", ValueError, "mask", {"mask": np.ones((HEADS_K, 1, 1), bool)}),
    ("rank of mask", ValueError, "mask", {"mask": np.ones((1, 1, 1, 1, 1), bool)}),
    ("bool bias", TypeError, "bias", {"bias": np.ones((SEQLEN_Q, SEQLEN_K), bool)}),
    ("integer bias", TypeError, "bias", {"bias": np.ones((SEQLEN_Q, SEQLEN_K), int)}),
    ("shape of bias", ValueError, "bias", {"bias": floats(SEQLEN_Q + 1, SEQLEN_K)}),
    ("batch of bias", ValueError, "bias", {"bias": floats(3, 1, 1, 1)}),
    # modifiers
    ("negative softcap", ValueError, "softcap", {"softcap": -1.0}),
    ("NaN softcap", ValueError, "softcap", {"softcap": float("nan")}),
    ("text softcap", TypeError, "softcap", {"softcap": "soft"}),
    ("shape of slopes", ValueError, "alibi_slopes", {"alibi_slopes": floats(HEADS_Q + 1)}),
    ("batch of slopes", ValueError, "alibi_slopes", {"alibi_slopes": floats(3, HEADS_Q)}),
    ("dtype of slopes", TypeError, "alibi_slopes", {"alibi_slopes": np.ones(HEADS_Q, int)}),
    ("shape of sinks", ValueError, "sinks", {"sinks": floats(HEADS_K)}),
    ("rank of sinks", ValueError, "sinks", {"sinks": floats(1, HEADS_Q)}),
    ("dtype of sinks", TypeError, "sinks", {"sinks": np.ones(HEADS_Q, bool)}),
    ("dropout above 1", ValueError, "dropout", {"dropout": 1.1, "seed": 1}),
    ("negative dropout", ValueError, "dropout", {"dropout": -0.1, "seed": 1}),
    ("NaN dropout", ValueError, "dropout", {"dropout": float("nan"), "seed": 1}),
    ("dropout without seed", ValueError, "seed", {"dropout": 0.5}),
    ("negative seed", ValueError, "seed", {"dropout": 0.5, "seed": -1}),
    ("seed beyond 64 bits", ValueError, "seed", {"dropout": 0.5, "seed": 2**64}),
    ("fractional seed", TypeError, "seed", {"dropout": 0.5, "seed": 0.5}),
    # lengths
    ("shape of kv_lengths", ValueError, "kv_lengths", {"kv_lengths": np.array([1, 2, 3])}),
    ("kv_lengths too long", ValueError, "kv_lengths", {"kv_lengths": np.array([1, SEQLEN_K + 1])}),
    ("negative kv_lengths", ValueError, "kv_lengths", {"kv_lengths": np.array([-1, 2])}),
    ("dtype of kv_lengths", TypeError, "kv_lengths", {"kv_lengths": np.array([1.0, 2.0])}),
    ("q_lengths too long", ValueError, "q_lengths", {"q_lengths": np.array([1, SEQLEN_Q + 1])}),
    ("shape of q_lengths", ValueError, "q_lengths", {"q_lengths": np.array([[1, 2]])}),
    ("dtype of q_lengths", TypeError, "q_lengths", {"q_lengths": np.array([True, False])}),
    # packed
    ("unknown layout", ValueError, "layout", {"layout": "sbhd"}),
    ("thd without cu_seqlens", ValueError, "cu_seqlens", PACKED | {"cu_seqlens_q": None, "cu_seqlens_k": None}),
    ("thd without one cu_seqlens", ValueError, "cu_seqlens_k", PACKED | {"cu_seqlens_k": None}),
    ("cu_seqlens without thd", ValueError, "cu_seqlens|layout", {"cu_seqlens_q": np.array([0, 5]), "cu_seqlens_k": np.array([0, 7])}),
    ("cu_seqlens not from 0", ValueError, "cu_seqlens_q", PACKED | {"cu_seqlens_q": np.array([1, 2, 6])}),
    ("cu_seqlens decreasing", ValueError, "cu_seqlens_k", PACKED | {"cu_seqlens_k": np.array([0, 10, 9])}),
    ("cu_seqlens too short", ValueError, "cu_seqlens_q", PACKED | {"cu_seqlens_q": np.array([0, 2, 5])}),
    ("cu_seqlens too long", ValueError, "cu_seqlens_k", PACKED | {"cu_seqlens_k": np.array([0, 4, 99])}),
    ("cu_seqlens unequal", ValueError, "cu_seqlens", PACKED | {"cu_seqlens_q": np.array([0, 1, 2, 6])}),
    ("cu_seqlens empty", ValueError, "cu_seqlens_q", PACKED | {"cu_seqlens_q": np.array([], int)}),
    ("dtype of cu_seqlens", TypeError, "cu_seqlens_q", PACKED | {"cu_seqlens_q": np.array([0.0, 2, 6])}),
    ("thd of rank 4", ValueError, "q", PACKED | {"q": floats(1, 6, HEADS_Q, DIM)}),
    ("thd with lengths", ValueError, "kv_lengths", PACKED | {"kv_lengths": np.array([1, 1])}),
    ("mask of packed", ValueError, "mask", PACKED | {"mask": np.ones((6, 9), bool)}),
    ("rows of a packed bias", ValueError, "bias", PACKED | {"bias": floats(2, 1, 6, 5)}),
    ("keys of a packed bias", ValueError, "bias", PACKED | {"bias": floats(2, 1, 4, 9)}),
    ("sequences of a packed bias", ValueError, "bias", PACKED | {"bias": floats(3, 1, 4, 5)}),
    # pages
    ("pages without lengths", ValueError, "kv_lengths", PAGED | {"kv_lengths": None}),
    ("page beyond the last", ValueError, "block_table", PAGED | {"block_table": np.array([[0, 5], [4, -1]], np.int32)}),
    ("negative page in use", ValueError, "block_table", PAGED | {"block_table": np.array([[0, -1], [4, -1]], np.int32)}),
    ("too few pages", ValueError, "kv_lengths|block_table", PAGED | {"kv_lengths": np.array([9, 3])}),
    ("dtype of block_table", TypeError, "block_table", PAGED | {"block_table": np.zeros((2, 2), np.float32)}),
    ("rank of block_table", ValueError, "block_table", PAGED | {"block_table": np.zeros(2, np.int32)}),
    ("batch of block_table", ValueError, "block_table", PAGED | {"block_table": np.zeros((3, 2), np.int32)}),
    ("pages and packing", (ValueError, NotImplementedError), "block_table|layout", PACKED | {"block_table": np.zeros((2, 3), np.int32)}),
    ("mask of pages", ValueError, r"mask .* \(2, 4, 5, 7\).* = 8", PAGED | {"mask": np.ones((BATCH, 1, 1, 9), bool)}),
    ("bias longer than pages", ValueError, "bias", PAGED | {"bias": floats(16)}),
    ("rank of pages", ValueError, "k", PAGED | {"k": floats(5, HEADS_K, DIM)}),
    # results
    ("shape of out", ValueError, "out", {"out": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM)}),
    ("dtype of out", TypeError, "out", {"out": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM_V, dtype=np.float64)}),
    ("out of fewer bits", TypeError, "out", {"out": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM_V, dtype=np.float16)}),
    ("kind of out", TypeError, "out", {"out": 3}),
    ("unknown backend", ValueError, "backend", {"backend": "tpu"}),
]  # fmt: skip


def complain(call, error, argument):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.match(r"\w+: ", message), f"{message!r} does not name the function"
    assert re.search(rf"\b({argument})", message), f"{message!r} does not name {argument}"
    assert len(message) > 15, f"{message!r} explains nothing"


@pytest.mark.parametrize(
    ("error", "argument", "change"),
    [case[1:] for case in WRONG_CALLS],
    ids=[case[0] for case in WRONG_CALLS],
)
def test_forward_refuses(error, argument, change):
    arguments = base() | change
    complain(lambda: attnext.attention(**arguments), error, argument)


def test_unknown_option():
    with pytest.raises(TypeError, match="flavour"):
        attnext.attention(**base(), flavour=1)


def test_read_only_out():
    out = floats(BATCH, HEADS_Q, SEQLEN_Q, DIM_V)
    out.flags.writeable = False
    complain(lambda: attnext.attention(**base(), out=out), (ValueError, TypeError), "out")


def test_out_that_overlaps_itself():
    out = np.broadcast_to(floats(1, HEADS_Q, SEQLEN_Q, DIM_V), (BATCH, HEADS_Q, SEQLEN_Q, DIM_V))
    out = np.lib.stride_tricks.as_strided(out, out.shape, out.strides, writeable=True)
    complain(lambda: attnext.attention(**base(), out=out), ValueError, "out")


def test_message_says_rule_and_finding():
    arguments = base() | {"k": floats(BATCH, HEADS_K, SEQLEN_K, 32)}
    with pytest.raises(ValueError, match=r"^attention: k must have q's head_dim 8, found 32"):
        attnext.attention(**arguments)


BACKWARD_CALLS = [
    ("shape of dout", ValueError, "dout", {"dout": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM)}),
    (
        "dtype of dout",
        TypeError,
        "dout",
        {"dout": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM_V, dtype=np.float64)},
    ),
    ("shape of out", ValueError, "out", {"out": floats(BATCH, HEADS_Q, SEQLEN_Q + 1, DIM_V)}),
    ("shape of lse", ValueError, "lse", {"lse": floats(BATCH, HEADS_Q, SEQLEN_Q, 1)}),
    ("dtype of lse", TypeError, "lse", {"lse": floats(BATCH, HEADS_Q, SEQLEN_Q, dtype=np.float16)}),
    ("shape of dlse", ValueError, "dlse", {"dlse": floats(BATCH, HEADS_Q)}),
    ("head_dim of k", ValueError, "k", {"k": floats(BATCH, HEADS_K, SEQLEN_K, DIM + 1)}),
    ("pages", NotImplementedError, "block_table", PAGED),
    ("no seed", ValueError, "seed", {"dropout": 0.5}),
]


@pytest.mark.parametrize(
    ("error", "argument", "change"),
    [case[1:] for case in BACKWARD_CALLS],
    ids=[case[0] for case in BACKWARD_CALLS],
)
def test_backward_refuses(error, argument, change):
    out, lse = attnext.attention(**base(), return_lse=True)
    arguments = {"dout": out, **base(), "out": out, "lse": lse} | change
    complain(lambda: attnext.attention_backward(**arguments), error, argument)


OTHER_CALLS = [
    ("rows beyond the last", ValueError, "rows", lambda: attnext.attention_weights(base()["q"], base()["k"], rows=[SEQLEN_Q])),
    ("fractional rows", TypeError, "rows", lambda: attnext.attention_weights(base()["q"], base()["k"], rows=[0.5])),
    ("stats of other keys", ValueError, "k", lambda: attnext.attention_stats(base()["q"], floats(BATCH, HEADS_K, SEQLEN_K, DIM + 1))),
    ("merge of nothing", ValueError, "outs", lambda: attnext.merge_attention([], [])),
    ("merge of unequal counts", ValueError, "lses", lambda: attnext.merge_attention([floats(1, 1, 2, 3)], [])),
    ("merge of unequal shapes", ValueError, "outs", lambda: attnext.merge_attention([floats(1, 1, 2, 3), floats(1, 1, 2, 4)], [floats(1, 1, 2)] * 2)),
    ("lse of merge", ValueError, "lses", lambda: attnext.merge_attention([floats(1, 1, 2, 3)], [floats(1, 1, 3)])),
    ("shape of dropout_mask", ValueError, "shape", lambda: attnext.dropout_mask((2, -1, 3, 4), 0.5, 1)),
    ("dropout of dropout_mask", ValueError, "dropout", lambda: attnext.dropout_mask((2, 1, 3, 4), 1.5, 1)),
    ("values of both directions", ValueError, "v_q", lambda: attnext.bidirectional_attention(base()["q"], base()["k"], floats(BATCH, HEADS_K, SEQLEN_Q, DIM), base()["v"])),
    ("pages in both directions", NotImplementedError, "block_table", lambda: attnext.bidirectional_attention(base()["q"], PAGED["k"], base()["q"], PAGED["v"], kv_lengths=PAGED["kv_lengths"], block_table=PAGED["block_table"])),
    ("other rows of v_q", ValueError, "v_q", lambda: attnext.bidirectional_attention(base()["q"], base()["k"], floats(BATCH, HEADS_Q, SEQLEN_Q + 1, DIM), base()["v"])),
    ("lengths of pool", ValueError, "lengths", lambda: attnext.attention_pool(floats(2, 3, 4), floats(4), lengths=[1, 9])),
    ("dim of positions", ValueError, "seqlen and dim", lambda: attnext.sinusoidal_positions(4, -1)),
    ("heads of slopes", ValueError, "num_heads", lambda: attnext.alibi_slopes(0)),
]  # fmt: skip


def without_v(**change):
    return {name: x for name, x in (base() | change).items() if name != "v"}


def like_results(**change):
    dout, lse = floats(BATCH, HEADS_Q, SEQLEN_Q, DIM_V), floats(BATCH, HEADS_Q, SEQLEN_Q)
    return {"dout": dout, **base(), "out": dout, "lse": lse} | change


class NoCapsule:
    """Claims to have memory that others can read, and has none."""

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **_):
        return None


def both_directions(**change):
    q, k, v_k = base().values()
    return {"q": q, "k": k, "v_q": floats(BATCH, HEADS_Q, SEQLEN_Q, DIM), "v_k": v_k} | change


# The function, its arguments, and how the message begins: nothing of the calls it is made of.
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


def test_ragged_masks_fit_their_longest_sequences():
    """What is refused above is refused for its lengths alone."""
    for change, shapes in (
        (PACKED, [(2, 1, 4, 5), (1, HEADS_Q, 4, 1), (5,), (1,)]),
        (PAGED, [(BATCH, 1, SEQLEN_Q, 7), (8,), (SEQLEN_Q, 1)]),
    ):
        arguments = base() | change
        expected = attnext.attention(**arguments)
        for shape in shapes:
            found = attnext.attention(**arguments, mask=np.ones(shape, bool))
            assert np.array_equal(found, expected), shape


def test_an_error_leaves_nothing_behind():
    """A refused call does not spoil the next one."""
    expected = attnext.attention(**(arguments := base()))
    with pytest.raises(ValueError, match="softcap"):
        attnext.attention(**arguments, softcap=-1.0)
    assert np.array_equal(attnext.attention(**arguments), expected)


def test_cuda_is_refused_by_name_where_absent():
    if any(backend.name == "cuda" and backend.available for backend in attnext.backends()):
        pytest.skip("this machine has a CUDA back end")
    complain(
        lambda: attnext.attention(**base(), backend="cuda"),
        (NotImplementedError, RuntimeError, ValueError),
        "cuda|CUDA|backend",
    )
