"""Is every wrong call of attention refused, naming the argument? Calls as data, a line each."""

# ruff: noqa: E501  (a call is a line)
from types import SimpleNamespace

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
    HUGE,
    PACKED,
    PAGED,
    SEQLEN_K,
    SEQLEN_Q,
    base,
    complain,
    floats,
)


class Unreadable:
    """A pair by its length only."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise RuntimeError("no items today")


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
    ("scale beyond float32", ValueError, "scale .* float32", {"scale": 1e39}),
    ("score as scale", TypeError, "scale", {"scale": ADDITIVE([1.0, 2, 3, 4], [1.0, 2, 3, 4])}),
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
    ("text as a side of window", TypeError, "each side of window .* found str", {"window": ("a", 0)}),
    ("window that cannot be read", TypeError, "window", {"window": Unreadable()}),
    ("shape of q_offset", ValueError, "q_offset", {"q_offset": np.array([1, 2, 3])}),
    ("fractional q_offset", TypeError, "q_offset", {"q_offset": 1.5}),
    ("dtype of q_offset", TypeError, "q_offset", {"q_offset": floats(BATCH)}),
    # mask and bias
    ("score as mask", TypeError, "mask", {"mask": ADDITIVE(floats(DIM))}),
    ("ragged bias", ValueError, "bias", {"bias": [[0.0], [1.0, 2.0]]}),
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
    ("dtype of q_lengths", TypeError, "q_lengths must be of an integer type, found bool", {"q_lengths": np.array([True, False])}),
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
    ("text return_lse", TypeError, "return_lse", {"return_lse": "yes"}),
    ("kind of out", TypeError, "out", {"out": 3}),
    ("array as backend", TypeError, "backend", {"backend": floats(2)}),
    ("unknown backend", ValueError, "backend", {"backend": "tpu"}),
]  # fmt: skip


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


def test_score_without_bias():
    """Any object with a weight will do."""
    score = SimpleNamespace(weight=floats(DIM))
    found = attnext.attention(**base(), score=score)
    assert found.shape == (BATCH, HEADS_Q, SEQLEN_Q, DIM_V)


class Elsewhere:
    """Says nonsense about where its memory is."""

    def __init__(self, device):
        self.device = device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **_):
        raise BufferError("not here either")


@pytest.mark.parametrize("device", [None, (1,), ("cpu", 0), (1, "x"), (2**40, 0), "ab"], ids=str)
def test_device_of_no_meaning(device):
    arguments = base() | {"q": Elsewhere(device)}
    complain(lambda: attnext.attention(**arguments), TypeError, "q .*__dlpack_device__")


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
    ("huge bias", ValueError, "bias", {"bias": HUGE}),
    ("huge scale", ValueError, "scale", {"scale": HUGE}),
    ("huge slopes", ValueError, "alibi_slopes", {"alibi_slopes": HUGE}),
    ("huge sinks", ValueError, "sinks", {"sinks": HUGE}),
    ("huge weight", ValueError, "AdditiveScore", {"score": ADDITIVE(HUGE)}),
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
