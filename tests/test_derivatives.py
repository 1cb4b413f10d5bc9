"""Are the gradients the derivatives of what the kernels compute? By central differences."""

import numpy as np
import pytest

import attnext

STEP = 1e-5
SEQLENS, DIM, DIM_V, HEADS = (5, 7), 3, 4, (4, 2)
ROUNDING_OF_DIFFERENCES = 2e-8


def draw(rng):
    """Every array of a problem that has a derivative."""
    (seqlen_q, seqlen_k), (heads_q, heads_k) = SEQLENS, HEADS
    return {
        "q": rng.normal(size=(2, heads_q, seqlen_q, DIM)),
        "k": rng.normal(size=(2, heads_k, seqlen_k, DIM)),
        "v": rng.normal(size=(2, heads_k, seqlen_k, DIM_V)),
        "scale": rng.uniform(0.5, 1.5, heads_q),
        "bias": rng.normal(size=(heads_q, seqlen_q, seqlen_k)),
        "alibi_slopes": rng.uniform(0.1, 0.9, (2, heads_q)),
        "sinks": rng.normal(size=heads_q),
        "weight": rng.normal(size=(heads_q, DIM)),
        "score_bias": rng.normal(size=(heads_q, DIM)),
    }


ALWAYS = ("q", "k", "v")
ADDITIVE = ("weight", "score_bias")
MODIFIERS = ("scale", "bias", "alibi_slopes", "sinks")

PROBLEMS = {
    "dot": ({}, ()),
    "dot_default_scale_causal": ({"causal": True}, ()),
    "cosine": ({"score": "cosine"}, ("scale",)),
    "neg_l2": ({"score": "neg_l2"}, ("scale",)),
    "neg_sq_l2": ({"score": "neg_sq_l2"}, ("scale",)),
    "additive": ({"score": "additive"}, ADDITIVE),
    "scale": ({}, ("scale",)),
    "bias": ({}, ("bias",)),
    "alibi": ({"q_offset": 2}, ("alibi_slopes",)),
    "sinks": ({"causal": "top_left"}, ("sinks",)),
    "softcap": ({"softcap": 1.3}, ("scale", "bias")),
    "dropout": ({"dropout": 0.4, "seed": 6}, ("scale", "sinks")),
    "window": ({"window": (2, 1)}, MODIFIERS),
    "lengths": ({"q_lengths": np.array([5, 3]), "kv_lengths": np.array([4, 7])}, MODIFIERS),
    **{
        f"everything_{score}": (
            {"score": score, "causal": True, "softcap": 2.0, "dropout": 0.3, "seed": 1},
            MODIFIERS + (ADDITIVE if score == "additive" else ()),
        )
        for score in ("dot", "cosine", "neg_l2", "neg_sq_l2", "additive")
    },
}


def split(arrays, fixed):
    """Positional arguments and options of a call."""
    options = {**fixed, **{name: arrays[name] for name in arrays if name in MODIFIERS}}
    if options.get("score") == "additive":
        options["score"] = attnext.AdditiveScore(arrays["weight"], arrays["score_bias"])
    return [arrays[name] for name in ALWAYS], options


def differences(loss, x):
    """d loss / d x, element by element; x is changed in place and restored."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        middle = x[index]
        x[index] = middle + STEP
        above = loss()
        x[index] = middle - STEP
        below = loss()
        x[index] = middle
        gradient[index] = (above - below) / (2 * STEP)
    return gradient


@pytest.mark.parametrize("of", ["out", "lse"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_derivatives(problem, of):
    fixed, modifiers = PROBLEMS[problem]
    rng = np.random.default_rng(len(problem))
    arrays = {name: x for name, x in draw(rng).items() if name in ALWAYS + modifiers}
    inputs, options = split(arrays, fixed)
    out, lse = attnext.attention(*inputs, return_lse=True, **options)
    dout = rng.normal(size=out.shape) if of == "out" else np.zeros_like(out)
    dlse = np.where(np.isfinite(lse), rng.normal(size=lse.shape), 0) if of == "lse" else None

    def loss():
        out, lse = attnext.attention(*inputs, return_lse=True, **options)
        return (dout * out).sum() + (
            0 if dlse is None else (dlse * np.where(np.isfinite(lse), lse, 0)).sum()
        )

    grads = attnext.attention_backward(dout, *inputs, out, lse, dlse=dlse, **options)
    for name, x in arrays.items():
        expected = differences(loss, x)
        actual = getattr(grads, f"d{name}")
        assert actual.shape == x.shape, name
        allowed = ROUNDING_OF_DIFFERENCES * max(1, np.abs(expected).max())
        assert np.abs(actual - expected).max() <= allowed, name
    if of == "out":
        assert any(np.abs(getattr(grads, f"d{name}")).max() > 1e-3 for name in arrays), (
            "a gradient of nothing"
        )


def test_bidirectional_derivatives():
    rng = np.random.default_rng(0)
    arrays = draw(rng)
    v_q, v_k = rng.normal(size=(2, HEADS[0], SEQLENS[0], 3)), arrays["v"]
    names = {"q": arrays["q"], "k": arrays["k"], "v_q": v_q, "v_k": v_k}
    options = {name: arrays[name] for name in MODIFIERS} | {
        "softcap": 2.0,
        "dropout": 0.3,
        "seed": 3,
    }
    results = attnext.bidirectional_attention(*names.values(), return_lse=True, **options)
    weights = [rng.normal(size=result.shape) for result in results]

    def loss():
        results = attnext.bidirectional_attention(*names.values(), return_lse=True, **options)
        return sum((weight * result).sum() for weight, result in zip(weights, results, strict=True))

    grads = attnext.bidirectional_attention_backward(
        *weights[:2], *names.values(), *results, dlse_q=weights[2], dlse_k=weights[3], **options
    )
    for name, x in (names | {name: arrays[name] for name in MODIFIERS}).items():
        expected = differences(loss, x)
        allowed = ROUNDING_OF_DIFFERENCES * max(1, np.abs(expected).max())
        assert np.abs(getattr(grads, f"d{name}") - expected).max() <= allowed, name


@pytest.mark.parametrize("has_values", [False, True])
def test_pool_derivatives(has_values):
    rng = np.random.default_rng(1)
    arrays = {"x": rng.normal(size=(2, 5, 3)), "weight": rng.normal(size=3)}
    if has_values:
        arrays["values"] = rng.normal(size=(2, 5, 4))
    options = {"values": arrays.get("values"), "lengths": np.array([5, 2])}
    dpooled = rng.normal(size=(2, 4 if has_values else 3))

    def loss():
        return (dpooled * attnext.attention_pool(arrays["x"], arrays["weight"], **options)).sum()

    grads = attnext.attention_pool_backward(dpooled, arrays["x"], arrays["weight"], **options)
    for name, x in arrays.items():
        assert (
            np.abs(getattr(grads, f"d{name}") - differences(loss, x)).max()
            < ROUNDING_OF_DIFFERENCES
        ), name
