"""Does a wrong call say which argument breaks which rule? A rule for each row."""

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402

import attnext.torch as at  # noqa: E402

Q, K, V = torch.zeros(2, 4, 5, 6), torch.zeros(2, 2, 7, 6), torch.zeros(2, 2, 7, 3)

# What is wrong with the options, the error, and how its message begins.
OPTIONS = [
    ({"score": "manhattan"}, ValueError, "score must be 'dot', 'cosine'"),
    ({"score": 3}, TypeError, "score must be 'dot', 'cosine'"),
    ({"score": at.AdditiveScore(None)}, TypeError, "AdditiveScore.weight must be a tensor"),
    ({"score": at.AdditiveScore(torch.zeros(5))}, ValueError, "AdditiveScore.weight must"),
    ({"score": "cosine"}, ValueError, "scale must be given with score cosine"),
    ({"scale": "big"}, TypeError, "scale must be a tensor, found str"),
    ({"scale": True}, TypeError, "scale must be a number, found bool"),
    ({"scale": torch.zeros(3)}, ValueError, "scale must have shape (num_heads_q,)"),
    ({"scale": torch.zeros(4, dtype=torch.int32)}, TypeError, "scale must be float64, float32"),
    ({"scale": float("nan")}, ValueError, "scale must be a number, found nan"),
    ({"causal": "left"}, ValueError, "causal must be False, True, 'bottom_right' or 'top_left'"),
    ({"causal": torch.tensor(True)}, ValueError, "causal must be False, True"),
    ({"q_offset": 0.5}, TypeError, "q_offset must be of an integer type"),
    ({"q_offset": torch.zeros(3, dtype=torch.int64)}, ValueError, "q_offset must have shape"),
    ({"window": 3}, ValueError, "window must be a pair (left, right), found 3"),
    ({"window": (1, 2, 3)}, ValueError, "window must be a pair"),
    ({"window": (1.5, 2)}, TypeError, "each side of window must be an integer, found 1.5"),
    ({"window": (-2, 2)}, ValueError, "each side of window must be at least 0"),
    ({"softcap": -1.0}, ValueError, "softcap must be finite and at least 0"),
    ({"softcap": "high"}, TypeError, "softcap must be a number, found str"),
    ({"softcap": torch.zeros(())}, TypeError, "softcap must be a number, found Tensor"),
    ({"mask": torch.zeros(5, 7)}, TypeError, "mask must be bool"),
    ({"mask": torch.zeros(5, 6, dtype=torch.bool)}, ValueError, "mask must broadcast to"),
    ({"bias": torch.zeros(5, 6)}, ValueError, "bias must broadcast to"),
    ({"bias": torch.zeros(5, 7, dtype=torch.int64)}, TypeError, "bias must be float64, float32"),
    ({"bias": torch.zeros(1, 1, 1, 5, 7)}, ValueError, "bias must have at most 4 axes"),
    ({"alibi_slopes": torch.zeros(3)}, ValueError, "alibi_slopes must have shape"),
    ({"sinks": torch.zeros(2)}, ValueError, "sinks must have shape"),
    ({"sinks": object()}, TypeError, "sinks must be a tensor, found object"),
    ({"dropout": 0.5}, ValueError, "seed is required when dropout > 0"),
    ({"dropout": 1.5, "seed": 1}, ValueError, "dropout must be in [0, 1], found 1.5"),
    ({"dropout": "half"}, TypeError, "dropout must be a number, found str"),
    ({"seed": -1}, ValueError, "seed must be in [0, 2**64), found -1"),
    ({"seed": 2**64}, ValueError, "seed must be in [0, 2**64)"),
    ({"seed": 0.5}, TypeError, "seed must be an integer, found 0.5"),
    ({"seed": torch.zeros(2, dtype=torch.int64)}, TypeError, "seed must be an int or a 0-d int64"),
    ({"kv_lengths": [3, 9]}, ValueError, "kv_lengths must be in [0, seqlen_k 7], found 9"),
    ({"kv_lengths": [3]}, ValueError, "kv_lengths must have shape (batch,)"),
    ({"q_lengths": [1.5, 2]}, TypeError, "q_lengths must be of an integer type"),
    ({"q_lengths": torch.tensor([True, False])}, TypeError, "q_lengths must be of an integer"),
    ({"cu_seqlens_q": [0, 5]}, ValueError, "cu_seqlens_q and cu_seqlens_k must be given only"),
    ({"block_table": [[0]]}, ValueError, "kv_lengths must be given with block_table"),
    ({"layout": "sbhd"}, ValueError, "layout must be 'bhsd', 'bshd' or 'thd', found 'sbhd'"),
    ({"layout": 3}, TypeError, "layout must be a string, found int"),
    ({"backend": "tpu"}, ValueError, "backend must be None, 'cpu', 'cuda' or 'reference'"),
    ({"backend": "cuda"}, RuntimeError, "backend 'cuda' is not there"),
    ({"backend": 1}, TypeError, "backend must be a string, found int"),
]


def complain(call, error, begin):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value).startswith(begin), str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    OPTIONS,
    ids=[f"{i}-{next(iter(x[0]))}" for i, x in enumerate(OPTIONS)],
)
def test_options(options, error, rule):
    complain(lambda: at.attention(Q, K, V, **options), error, f"attention: {rule}")


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    [row for row in OPTIONS if "seed" not in row[0] and "dropout" not in row[0]],
)
def test_options_of_the_other_functions(options, error, rule):
    calls = {
        "attention_weights": lambda: at.attention_weights(Q, K, **options),
        "attention_stats": lambda: at.attention_stats(Q, K, **options),
        "bidirectional_attention": lambda: at.bidirectional_attention(Q, K, Q, V, **options),
    }
    if "block_table" in options:  # which has a refusal of its own
        del calls["bidirectional_attention"]
    for name, call in calls.items():
        complain(call, error, f"{name}: {rule}")


ARRAYS = [
    ((Q.numpy(), K, V), TypeError, "attention: q must be a torch.Tensor, found ndarray"),
    ((Q, [1.0], V), TypeError, "attention: k must be a torch.Tensor, found list"),
    ((Q, K, None), TypeError, "attention: v must be a torch.Tensor, found NoneType"),
    ((Q, K[..., :5], V), ValueError, "attention: k must have q's head_dim 6, found 5"),
    ((Q, K.double(), V), TypeError, "attention: k must have q's dtype"),
    ((Q, K, V[:, :, :6]), ValueError, "attention: v must have k's seqlen_k 7, found 6"),
    ((Q, K[:, :, None], V), ValueError, "attention: k must have at most 4 axes"),
    ((Q, K[0], V[0]), ValueError, "attention: k must have as many axes as q"),
    ((Q[:, :3], K, V), ValueError, "attention: q must have num_heads_q a multiple of"),
    ((Q.to(torch.complex64), K, V), TypeError, "attention: q must be float64, float32"),
    ((Q.int(), K.int(), V.int()), TypeError, "attention: q must be float64, float32"),
    ((Q[0, 0, 0],) * 3, ValueError, "attention: q must have 2, 3 or 4 axes"),
    ((Q.to("meta"), K, V), TypeError, "attention: k must be on the device of q, meta, found cpu"),
]


@pytest.mark.parametrize(("arrays", "error", "message"), ARRAYS, ids=range(len(ARRAYS)))
def test_arrays(arrays, error, message):
    complain(lambda: at.attention(*arrays), error, message)


def test_unknown_options():
    for function in (at.attention, at.attention_weights, at.attention_stats):
        with pytest.raises(TypeError, match=rf"{function.__name__}\(\) got an unexpected keyword"):
            function(Q, K, V, is_causal=True) if function is at.attention else function(
                Q, K, is_causal=True
            )


def test_a_device_that_nothing_computes_on():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        for device, reason in (("cuda", "CUDA"), ("xpu", "no back end")):
            q = torch.empty(4, 5, 6, device=device)
            rule = f"must be on a device that attnext computes on, found {device}"
            for name, call in {
                "attention: q": lambda q=q: at.attention(q, q, q),
                "attention_weights: q": lambda q=q: at.attention_weights(q, q),
                "rotary: x": lambda q=q: at.rotary(q),
                "scaled_dot_product_attention: query": lambda q=q: at.scaled_dot_product_attention(
                    q, q, q
                ),
            }.items():
                with pytest.raises(TypeError, match=rf"^{name} {rule}.*{reason}"):
                    call()


def test_out():
    out = torch.empty(2, 4, 5, 3)
    assert at.attention(Q, K, V, out=out) is out
    q = Q.clone().requires_grad_()
    sinks = torch.zeros(4, requires_grad=True)
    rule = "attention: out must be given only where nothing requires grad, found that"
    complain(lambda: at.attention(q, K, V, out=out), ValueError, f"{rule} q does")
    complain(lambda: at.attention(Q, K, V, sinks=sinks, out=out), ValueError, f"{rule} sinks does")
    with torch.no_grad():
        out, lse = at.attention(q, K, V, sinks=sinks, out=out, return_lse=True)
    assert torch.equal(lse, at.attention(Q, K, V, sinks=sinks, return_lse=True)[1])
    complain(
        lambda: at.attention(Q, K, V, out=out[..., :2]),
        ValueError,
        "attention: out must have shape",
    )
    complain(
        lambda: at.attention(Q, K, V, out=3), TypeError, "attention: out must be a torch.Tensor"
    )


def test_weights_and_rows():
    complain(
        lambda: at.attention_weights(Q, K, rows=[5]), ValueError,
        "attention_weights: rows must be in [-5, 5), found 5",
    )  # fmt: skip
    complain(
        lambda: at.attention_weights(Q, K, rows=[0.5]), TypeError,
        "attention_weights: rows must be of an integer type",
    )  # fmt: skip


def test_bidirectional():
    complain(
        lambda: at.bidirectional_attention(Q, K, V, V), ValueError,
        "bidirectional_attention: v_q must have the axes of q",
    )  # fmt: skip
    options = {"block_table": [[0], [1]], "kv_lengths": [1, 1]}
    complain(
        lambda: at.bidirectional_attention(Q, K, Q, V, **options), NotImplementedError,
        "bidirectional_attention: block_table",
    )  # fmt: skip


def test_merge():
    out, lse = at.attention(Q, K, V, return_lse=True)
    for outs, lses in (([], []), ([out], [lse, lse])):
        complain(
            lambda outs=outs, lses=lses: at.merge_attention(outs, lses), ValueError,
            "merge_attention: outs and lses must be as many",
        )  # fmt: skip
    complain(
        lambda: at.merge_attention([out], [lse.numpy()]), TypeError,
        "merge_attention: lses must be a torch.Tensor, found ndarray",
    )  # fmt: skip
    complain(
        lambda: at.merge_attention([out, out[:1]], [lse, lse[:1]]), ValueError,
        "merge_attention: outs",
    )  # fmt: skip
    complain(
        lambda: at.merge_attention([out], [lse], layout="hbsd"), ValueError,
        "merge_attention: layout must be",
    )  # fmt: skip


def test_positions():
    x = torch.zeros(2, 4, 5, 6)
    rows = [
        (lambda: at.rotary(x[..., :5]), ValueError, "rotary: x must have 2 to 4 axes"),
        (lambda: at.rotary(x, torch.arange(4)), ValueError, "rotary: positions must have shape"),
        (lambda: at.rotary(x, layout="sb"), ValueError, "rotary: layout must be"),
        (lambda: at.rotary(x, theta=0.0), ValueError, "rotary: theta must be finite and above 0"),
        (lambda: at.rotary(x, theta="b"), TypeError, "rotary: theta must be a number, found str"),
        (lambda: at.rotary(x.int()), TypeError, "rotary: x must be float64"),
        (lambda: at.rotary(3), TypeError, "rotary: x must be a torch.Tensor, found int"),
        (
            lambda: at.rotary(x, torch.zeros(5, requires_grad=True)), TypeError,
            "rotary: positions must not require grad",
        ),
        (lambda: at.rotary(x, ["a"] * 5), TypeError, "rotary: positions must be a tensor"),
        (lambda: at.alibi_slopes(0), ValueError, "alibi_slopes: num_heads must be at least 1"),
        (lambda: at.alibi_slopes(1.5), TypeError, "alibi_slopes: num_heads must be an integer"),
        (
            lambda: at.sinusoidal_positions(-1, 4), ValueError,
            "sinusoidal_positions: seqlen and dim must be at least 0",
        ),
        (
            lambda: at.sinusoidal_positions(1, "x"), TypeError,
            "sinusoidal_positions: dim must be an integer",
        ),
    ]  # fmt: skip
    for row in rows:
        complain(*row)


def test_dropout_mask():
    rows = [
        (((5,), 0.5, 1), ValueError, "shape must be"),
        (((5, 5), 2.0, 1), ValueError, "dropout must be in"),
        (((5, 5), 0.5, None), TypeError, "seed must be an integer"),
        (((5, 5), 0.5, -1), ValueError, "seed must be in"),
        (((5, 5), "x", 1), TypeError, "dropout must be a number, found str"),
        (((5, -5), 0.5, 1), ValueError, "shape must have"),
        (((5, 0.5), 0.5, 1), TypeError, "each axis of shape must be an integer"),
        ((5, 0.5, 1), TypeError, "shape must be a sequence"),
    ]
    for arguments, error, rule in rows:
        complain(lambda x=arguments: at.dropout_mask(*x), error, f"dropout_mask: {rule}")
    complain(
        lambda: at.dropout_mask((5, 5), 0.5, 1, stream=2), ValueError,
        "dropout_mask: stream must be 0 or 1, found 2",
    )  # fmt: skip


def test_pool():
    x, weight = torch.zeros(2, 5, 3), torch.zeros(3)
    rows = [
        ((x[0, 0], weight), {}, ValueError, "x must have axes (B, S, D) or (S, D)"),
        ((x, weight[:2]), {}, ValueError, "weight must have shape (D,), here (3,), found (2,)"),
        ((x, 3), {}, TypeError, "weight must be a torch.Tensor, found int"),
        ((x, weight), {"values": x[:, :4]}, ValueError, "values must have axes"),
        ((x, weight), {"values": x.double()}, TypeError, "values must have x's dtype"),
        ((x, weight), {"lengths": [5]}, ValueError, "lengths must have shape (batch,)"),
        ((x, weight), {"lengths": [5, 0.5]}, TypeError, "lengths must be of an integer type"),
        ((x, weight), {"lengths": [5, 6]}, ValueError, "lengths must be in [0,"),
        ((x.int(), weight), {}, TypeError, "x must be float64"),
    ]
    for arguments, options, error, rule in rows:
        complain(
            lambda a=arguments, o=options: at.attention_pool(*a, **o), error,
            f"attention_pool: {rule}",
        )  # fmt: skip


def test_sdpa():
    rows = [
        ((Q, K, V), {}, ValueError, "query, key and value must have leading axes that broadcast"),
        ((Q, K, V[:, :1]), {"enable_gqa": True}, ValueError, "key and value must have the same"),
        ((Q[0, 0, 0], K, V), {}, ValueError, "query must have axes (..., length, dim)"),
        ((3, K, V), {}, TypeError, "query must be a torch.Tensor, found int"),
        (
            (Q, Q, Q), {"attn_mask": torch.zeros(1, 1, 1, 5, 5)}, ValueError,
            "attn_mask must broadcast to (2, 4, 5, 5)",
        ),
        ((Q, Q, Q), {"attn_mask": torch.zeros(5, 4)}, ValueError, "attn_mask must broadcast to"),
        ((Q, Q, Q), {"attn_mask": torch.zeros(5, 5).int()}, TypeError, "attn_mask must be bool or"),
        ((Q, Q, Q), {"dropout_p": 2.0}, ValueError, "dropout_p must be in [0, 1], found 2"),
        ((Q, Q[..., :5], Q), {}, ValueError, "key must have query's head_dim 6, found 5"),
        ((Q, Q.double(), Q), {}, TypeError, "key must have query's dtype"),
    ]  # fmt: skip
    for arguments, options, error, rule in rows:
        complain(
            lambda a=arguments, o=options: at.scaled_dot_product_attention(*a, **o), error,
            f"scaled_dot_product_attention: {rule}",
        )  # fmt: skip


X = torch.zeros(2, 7, 12)
MODULES = [
    (lambda: at.MultiHeadAttention(12, 5), ValueError, "MultiHeadAttention: embed_dim must be"),
    (lambda: at.MultiHeadAttention(12, 4, num_kv_heads=3), ValueError, "MultiHeadAttention: num_h"),
    (lambda: at.MultiHeadAttention(12, 0), ValueError, "MultiHeadAttention: num_heads must be at"),
    (lambda: at.MultiHeadAttention(1.5, 1), TypeError, "MultiHeadAttention: embed_dim must be an"),
    (lambda: at.MultiHeadAttention(12, 4, score="l2"), ValueError, "MultiHeadAttention: score"),
    (
        lambda: at.MultiHeadAttention(12, 4, positions="learned"), ValueError,
        "MultiHeadAttention: positions must be one of None, 'rotary', 'alibi', 'sinusoidal'",
    ),
    (
        lambda: at.MultiHeadAttention(12, 4, causal="left"), ValueError,
        "MultiHeadAttention: causal must be one of",
    ),
    (
        lambda: at.MultiHeadAttention(12, 4, positions="rotary"), ValueError,
        "MultiHeadAttention: head_dim must be even for rotary, found 3",
    ),
    (
        lambda: at.MultiHeadAttention(12, 4, positions="sinusoidal", key_dim=8), ValueError,
        "MultiHeadAttention: key_dim must be embed_dim for sinusoidal positions",
    ),
    (lambda: at.MultiHeadAttention(12, 4, dropout=2), ValueError, "MultiHeadAttention: dropout"),
    (lambda: at.MultiHeadAttention(12, 4, dropout="x"), TypeError, "MultiHeadAttention: dropout"),
    (
        lambda: at.MultiHeadAttention(12, 4)(X[0]), ValueError,
        "MultiHeadAttention: query must have axes (B, S, 12), found (7, 12)",
    ),
    (
        lambda: at.MultiHeadAttention(12, 4)(X, X[..., :5]), ValueError,
        "MultiHeadAttention: key must have axes (B, S, 12)",
    ),
    (
        lambda: at.MultiHeadAttention(12, 4)(3), TypeError,
        "MultiHeadAttention: query must be a torch.Tensor, found int",
    ),
    (lambda: at.AdditiveAttention(0, 4, 3), ValueError, "AdditiveAttention: query_dim must be"),
    (
        lambda: at.AdditiveAttention(12, 12, 3)(X, X, X[0]), ValueError,
        "AdditiveAttention: value must have axes (B, S, D)",
    ),
    (lambda: at.GeneralAttention(4, -1), ValueError, "GeneralAttention: key_dim must be at least"),
    (lambda: at.CosineAttention(dropout=-1), ValueError, "CosineAttention: dropout must be in"),
    (lambda: at.EuclideanAttention()(X[0], X), ValueError, "EuclideanAttention: query must have"),
    (lambda: at.BidirectionalAttention(12, 8, 5), ValueError, "BidirectionalAttention: x_dim must"),
    (
        lambda: at.BidirectionalAttention(12, 8)(X, X), ValueError,
        "BidirectionalAttention: y must have axes (B, S, 8)",
    ),
    (lambda: at.AttentionPooling(12, 0), ValueError, "AttentionPooling: hidden_dim must be at"),
    (lambda: at.AttentionPooling(12, values="x"), ValueError, "AttentionPooling: values must be"),
    (lambda: at.AttentionPooling(12)(X[0]), ValueError, "AttentionPooling: x must have axes"),
    (
        lambda: at.AttentionPooling(12)(torch.zeros(2, 12, 3, 3), lengths=[1, 2]), ValueError,
        "AttentionPooling: lengths must be given for words only",
    ),
    (lambda: at.SinusoidalPositions(0), ValueError, "SinusoidalPositions: dim must be at least 1"),
    (lambda: at.SinusoidalPositions(8)(X), ValueError, "SinusoidalPositions: x must have 8 in its"),
    (
        lambda: at.SinusoidalPositions(12, 6)(X), ValueError,
        "SinusoidalPositions: positions must be in [0, max_seqlen 6), found 0 to 7",
    ),
    (lambda: at.SelfAttentionBlock(12, 4, hidden_dim=0), ValueError, "SelfAttentionBlock: hidden"),
    (lambda: at.SelfAttentionBlock(12, 5), ValueError, "MultiHeadAttention: embed_dim must be"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), MODULES, ids=range(len(MODULES)))
def test_modules(call, error, message):
    complain(call, error, message)


def test_numpy_numbers_are_taken():
    options = {"window": np.array([2, 0]).tolist(), "dropout": np.float32(0.5), "softcap": 2}
    expected = at.attention(Q, K, V, seed=3, causal=True, **options)
    options["window"] = tuple(np.array([2, 0]))
    assert torch.equal(
        at.attention(Q, K, V, seed=np.uint64(3), causal=np.bool_(True), **options), expected
    )


def test_numpy_options_are_taken():
    slopes, lengths = np.ones(4, np.float32), np.array([3, 7], np.int32)
    found = at.attention(Q, K, V, alibi_slopes=slopes, kv_lengths=lengths, scale=np.float32(0.3))
    expected = at.attention(
        Q,
        K,
        V,
        alibi_slopes=torch.ones(4),
        kv_lengths=torch.tensor([3, 7]),
        scale=float(np.float32(0.3)),
    )
    assert torch.equal(found, expected)
