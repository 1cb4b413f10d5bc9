"""Is the definition itself right? Against PyTorch's derivatives of the same formulas."""

import numpy as np
import pytest

import attnext
from attnext import AdditiveScore, reference
from draws import FLOATS, normal, problem

torch = pytest.importorskip("torch")
normalize = torch.nn.functional.normalize

SCORES = {
    "dot": lambda q, k, x: torch.einsum("bhid,bhjd->bhij", q, k),
    "cosine": lambda q, k, x: SCORES["dot"](normalize(q, dim=-1), normalize(k, dim=-1), x),
    "neg_sq_l2": lambda q, k, x: -((q[..., :, None, :] - k[..., None, :, :]) ** 2).sum(-1),
    "neg_l2": lambda q, k, x: -(-SCORES["neg_sq_l2"](q, k, x)).sqrt(),
    "additive": lambda q, k, x: (
        x["weight"][:, None, None]
        * torch.tanh(q[..., :, None, :] + k[..., None, :, :] + x["score_bias"][:, None, None])
    ).sum(-1),
}  # fmt: skip


def draw(rng):
    shapes = {
        "q": (2, 4, 5, 3), "k": (2, 2, 7, 3), "v": (2, 2, 7, 6), "scale": (4,), "bias": (4, 1, 7),
        "alibi_slopes": (2, 4), "sinks": (4,), "weight": (4, 3), "score_bias": (4, 3),
    }  # fmt: skip
    return {name: torch.tensor(rng.normal(size=shape)) for name, shape in shapes.items()}


def by_torch(score, x, visible, keep, softcap):
    """The formulas of semantics, in PyTorch's words."""
    k, v = (x[name].repeat_interleave(2, dim=1) for name in ("k", "v"))
    s = x["scale"][:, None, None] * SCORES[score](x["q"], k, x)
    s = softcap * torch.tanh(s / softcap) + x["bias"]
    distance = (torch.arange(5)[:, None] + 2 - torch.arange(7)).abs()
    s = s - x["alibi_slopes"][:, :, None, None] * distance
    s = s.masked_fill(~visible, -torch.inf)
    sinks = x["sinks"][:, None, None].expand(2, 4, 5, 1)
    s = torch.cat([s, sinks], dim=-1)
    p = torch.softmax(s, dim=-1)[..., :-1]
    return (p * keep / 0.7) @ v, torch.logsumexp(s, dim=-1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("score", SCORES)
def test_reference_is_what_torch_derives(score, seed):
    rng = np.random.default_rng(seed)
    x = {name: value.requires_grad_() for name, value in draw(rng).items()}
    mask = rng.random((2, 1, 5, 7)) < 0.8
    visible = torch.tensor(mask) & (torch.arange(7) <= torch.arange(5)[:, None] + 2)
    keep = torch.tensor(reference.dropout_mask((2, 4, 5, 7), 0.3, seed))
    out, lse = by_torch(score, x, visible, keep, softcap=2.0)
    dout, dlse = (torch.tensor(rng.normal(size=y.shape)) for y in (out, lse))
    ((dout * out).sum() + (dlse * lse).sum()).backward()

    arrays = {name: value.detach().numpy() for name, value in x.items()}
    inputs = [arrays[name] for name in "qkv"]
    options = {name: arrays[name] for name in ("scale", "bias", "alibi_slopes", "sinks")}
    options |= {"causal": True, "mask": mask, "softcap": 2.0, "dropout": 0.3, "seed": seed}
    is_additive = score == "additive"
    options["score"] = (
        AdditiveScore(arrays["weight"], arrays["score_bias"]) if is_additive else score
    )
    results = reference.attention(*inputs, return_lse=True, **options)
    grads = reference.attention_backward(
        dout.numpy(), *inputs, *results, dlse=dlse.numpy(), **options
    )

    for found, expected in zip(results, (out, lse), strict=True):
        assert np.abs(found - expected.detach().numpy()).max() < 1e-12
    for name, value in x.items():
        found = getattr(grads, f"d{name}")
        if value.grad is None:
            assert found is None, name
        else:
            assert np.abs(found - value.grad.numpy()).max() < 1e-11, name


ROUNDED = {"causal": True, "sinks": np.array([0.1, 2, -1, 0]), "dropout": 0.2, "seed": 3}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("options", [{}, ROUNDED], ids=["plain", "rich"])
def test_gradients_do_not_depend_on_how_results_were_rounded(options, dtype):
    q, k, v = problem(dtype=dtype)
    dout = normal(*q.shape, seed=4, dtype=dtype)
    unrounded = reference.attention(q, k, v, return_lse=True, **options)
    rounded = attnext.attention(q, k, v, return_lse=True, **options)
    truth, found = (
        reference.attention_backward(dout, q, k, v, *results, **options)
        for results in (unrounded, rounded)
    )
    for name, a, b in zip(truth._fields, found, truth, strict=True):
        assert b is None or np.abs(a - b).max() < 1e-12, name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gradients_of_a_part_of_the_keys(dtype):
    """With results over all keys, those of parts add up to that of the whole."""
    q, k, v = problem(dtype=dtype)
    out, lse = (x.astype(dtype) for x in reference.attention(q, k, v, return_lse=True))
    whole, *parts = (
        reference.attention_backward(q, q, k[:, :, keys], v[:, :, keys], out, lse)
        for keys in (slice(None), slice(30), slice(30, None))
    )
    bound = 1e-12 if dtype == np.float64 else 1e-5
    assert np.abs(parts[0].dq + parts[1].dq - whole.dq).max() < bound
    assert np.abs(np.concatenate([x.dk for x in parts], axis=2) - whole.dk).max() < bound
