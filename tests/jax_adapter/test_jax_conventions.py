"""Whose conventions does each function of attnext.jax follow? Pinned where they can be seen."""

import inspect

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = jax.numpy
import attnext.jax as attnext_jax  # noqa: E402

ZEROS_Q, ZEROS_K = jnp.zeros((3, 1)), jnp.zeros((5, 1))


def visible(**options):
    """Which of 5 keys each of 3 queries sees, as attnext's attention has it."""
    return attnext_jax.attention(ZEROS_Q, ZEROS_K, jnp.eye(5), **options) > 0


def visible_to_jax(**options):
    """Likewise, as dot_product_attention has it: (T, N, H)."""
    q, k, v = (x[:, None] for x in (ZEROS_Q, ZEROS_K, jnp.eye(5)))
    return attnext_jax.dot_product_attention(q, k, v, **options)[:, 0] > 0


def diagonal(left, right, offset):
    """Keys from i + offset - left to i + offset + right."""
    i, j = np.arange(3)[:, None], np.arange(5)
    return (j >= i + offset - left) & (j <= i + offset + right)


def test_causal_corner():
    assert np.array_equal(visible(causal=True), diagonal(9, 0, 2))
    assert np.array_equal(visible(causal="top_left"), diagonal(9, 0, 0))
    assert np.array_equal(visible_to_jax(is_causal=True), diagonal(9, 0, 0))


def test_window():
    assert np.array_equal(visible(window=(1, 0)), diagonal(1, 0, 2))
    assert np.array_equal(visible_to_jax(local_window_size=(1, 2)), diagonal(1, 2, 0))
    assert np.array_equal(visible_to_jax(local_window_size=1), diagonal(1, 1, 0))
    assert np.array_equal(
        visible_to_jax(local_window_size=(1, 2), is_causal=True), diagonal(1, 0, 0)
    )


def test_mask_true_means_attend():
    mask = np.random.default_rng(0).random((3, 5)) < 0.5
    assert np.array_equal(visible(mask=mask), mask)
    assert np.array_equal(visible_to_jax(mask=mask[None, None]), mask)


def test_a_masked_row_is_zero_where_jax_gives_the_mean():
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 4, 2, 8), dtype=np.float32)
    mask = np.ones((1, 1, 4, 4), bool)
    mask[:, :, 1] = False
    ours, lse = attnext_jax.dot_product_attention(q, k, v, mask=mask, return_residual=True)
    theirs = jax.nn.dot_product_attention(q, k, v, mask=mask)
    assert not ours[:, 1].any()
    assert np.isneginf(lse[:, 1]).all()
    assert np.allclose(theirs[:, 1], v.mean(1), atol=1e-6)
    assert np.allclose(np.delete(ours, 1, 1), np.delete(theirs, 1, 1), atol=1e-6)
    grads = jax.grad(
        lambda *qkv: attnext_jax.dot_product_attention(*qkv, mask=mask).sum(), (0, 1, 2)
    )(q, k, v)
    assert all(np.isfinite(x).all() for x in grads)
    assert not grads[0][:, 1].any()


def test_scale():
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 4, 2, 16), dtype=np.float32)
    standard = attnext_jax.dot_product_attention(q, k, v)
    assert np.allclose(standard, attnext_jax.dot_product_attention(q, k, v, scale=0.25))
    assert not np.allclose(standard, attnext_jax.dot_product_attention(q, k, v, scale=1.0))


OPTIONS = [
    {},
    {"is_causal": True},
    {"local_window_size": (5, 0), "is_causal": True},
    {"local_window_size": 6},
    {"scale": 0.3, "mask": np.random.default_rng(1).random((2, 1, 9, 7)) < 0.9},
    {"bias": np.random.default_rng(1).standard_normal((1, 4, 9, 7), dtype=np.float32)},
    {
        "query_seq_lengths": np.array([9, 2], np.int32),
        "key_value_seq_lengths": np.array([7, 3], np.int32),
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dot_product_attention_is_jax_s(options, dtype):
    rng = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(rng.standard_normal(shape), dtype)
        for shape in ((2, 9, 4, 8), (2, 7, 2, 8), (2, 7, 2, 8))
    )
    tolerance = {"float32": 2e-6, "bfloat16": 2e-2}[dtype]

    def run(function):
        out, residual = function(q, k, v, return_residual=True, **options)
        grads = jax.grad(lambda *qkv: (function(*qkv, **options) ** 2).sum(), (0, 1, 2))(q, k, v)
        return out, residual, grads

    (out, residual, grads), theirs = map(
        run, (attnext_jax.dot_product_attention, jax.nn.dot_product_attention)
    )
    assert residual.dtype == theirs[1].dtype
    seen = np.isfinite(residual.astype(np.float32))
    assert np.allclose(residual[seen], theirs[1][seen], atol=4 * tolerance)
    for x, y in zip((out, *grads), (theirs[0], *theirs[2]), strict=True):
        x, y = (np.asarray(z, np.float32) for z in (x, y))
        if "query_seq_lengths" in options:  # JAX lets rows that do not exist have gradients
            continue
        assert np.allclose(x, y, atol=tolerance * max(1, np.abs(y).max()))
    if "query_seq_lengths" in options:
        assert np.allclose(
            np.asarray(out, np.float32), np.asarray(theirs[0], np.float32), atol=tolerance
        )


def test_the_signature_is_jax_s():
    ours, theirs = (
        inspect.signature(function).parameters
        for function in (attnext_jax.dot_product_attention, jax.nn.dot_product_attention)
    )
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


def test_three_axes():
    q, k, v = np.random.default_rng(0).standard_normal((3, 5, 2, 8), dtype=np.float32)
    ours = attnext_jax.dot_product_attention(q, k, v, is_causal=True)
    theirs = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    assert np.allclose(ours, theirs, atol=1e-6)
