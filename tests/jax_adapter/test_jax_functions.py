"""Do the other functions of attnext.jax give what attnext's give, and gradients?"""

import numpy as np
import pytest
from bits import same

import attnext

jax = pytest.importorskip("jax")
jnp = jax.numpy
import attnext.jax as attnext_jax  # noqa: E402


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


@pytest.mark.parametrize("rows", [None, [3, -1, 0, 3], [], [0, 1]])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_weights(rows, layout):
    q, k = draw((2, 4, 6, 8), (2, 2, 6, 8) if layout == "bhsd" else (2, 4, 3, 8))
    options = {"rows": rows, "causal": True, "layout": layout}
    assert same(
        jax.jit(lambda q, k: attnext_jax.attention_weights(q, k, **options))(q, k),
        attnext.attention_weights(q, k, **options),
    )


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_weights_have_a_gradient(layout):
    q, k, sinks = draw((2, 6, 8), (2, 7, 8), (2,))
    rows, weights = [3, -1, 0, 3], draw((2, 4, 7))[0]

    def ours(q, k, sinks):
        if layout == "bshd":
            q, k = q.swapaxes(0, 1), k.swapaxes(0, 1)
        p = attnext_jax.attention_weights(
            q, k, rows=rows, sinks=sinks, dropout=0.5, seed=1, layout=layout
        )
        return (weights * p).sum()

    def formula(q, k, sinks):
        e = jnp.exp(jnp.einsum("hqd,hkd->hqk", q, k) / 8**0.5)
        p = e / (e.sum(-1, keepdims=True) + jnp.exp(sinks)[:, None, None])
        return (weights * p[:, jnp.array(rows)]).sum()

    for ours_grad, expected in zip(
        *(jax.grad(f, (0, 1, 2))(q, k, sinks) for f in (ours, formula)), strict=True
    ):
        assert np.allclose(ours_grad, expected, atol=2e-6)


def test_stats():
    q, k = draw((2, 4, 6, 8), (2, 2, 7, 8))
    ours = jax.jit(lambda q, k: attnext_jax.attention_stats(q, k, causal=True))(q, k)
    expected = attnext.attention_stats(q, k, causal=True)
    assert ours._fields == expected._fields
    assert all(map(same, ours, expected))
    with pytest.raises(ValueError, match=r"cannot be differentiated|do not support JVP"):
        jax.grad(lambda q: attnext_jax.attention_stats(q, k).entropy.sum())(q)


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_merge(layout):
    q, k, v = draw((2, 2, 5, 8), (2, 2, 9, 8), (2, 2, 9, 8))
    mask = np.arange(5)[:, None] > 1  # two rows see nothing anywhere
    if layout == "bshd":
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    keys = 2 if layout == "bhsd" else 1

    def halves(attend, q, k, v):
        parts = [np.s_[(slice(None),) * keys + (slice(i, None, 2),)] for i in range(2)]
        return zip(
            *(
                attend(q, k[part], v[part], mask=mask, return_lse=True, layout=layout)
                for part in parts
            )
        )

    ours = attnext_jax.merge_attention(*halves(attnext_jax.attention, q, k, v), layout=layout)
    expected = attnext.merge_attention(*halves(attnext.attention, q, k, v), layout=layout)
    for x, y in zip(ours, expected, strict=True):
        assert np.array_equal(np.isneginf(x), np.isneginf(y))
        assert np.allclose(x, y, atol=1e-6)

    def total(out, lse):
        return (out**2).sum() + jnp.where(jnp.isneginf(lse), 0, lse).sum()

    def merged(q, k, v):
        return total(
            *attnext_jax.merge_attention(*halves(attnext_jax.attention, q, k, v), layout=layout)
        )

    def whole(q, k, v):
        return total(*attnext_jax.attention(q, k, v, mask=mask, return_lse=True, layout=layout))

    for x, y in zip(*(jax.grad(f, (0, 1, 2))(q, k, v) for f in (merged, whole)), strict=True):
        assert np.allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True, "top_left"])
def test_bidirectional(causal):
    q, k, v_q, v_k, bias = draw((2, 4, 6, 8), (2, 2, 7, 8), (2, 4, 6, 5), (2, 2, 7, 5), (4, 6, 7))
    scale = np.array([0.3, 0.5, -0.2, 0.1], np.float32)
    options = {"causal": causal, "dropout": 0.2, "seed": 3}
    learned = {"bias": bias, "scale": scale}
    results = attnext.bidirectional_attention(q, k, v_q, v_k, return_lse=True, **options, **learned)
    ours = attnext_jax.bidirectional_attention(
        q, k, v_q, v_k, return_lse=True, **options, **learned
    )
    assert all(map(same, ours, results))
    grads = attnext.bidirectional_attention_backward(
        np.ones_like(results[0]), np.ones_like(results[1]), q, k, v_q, v_k, *results, **options,
        **learned,
    )  # fmt: skip

    def loss(q, k, v_q, v_k, learned):
        outs = attnext_jax.bidirectional_attention(q, k, v_q, v_k, **options, **learned)
        return sum(out.sum() for out in outs)

    *ours, ours_learned = jax.jit(jax.grad(loss, (0, 1, 2, 3, 4)))(q, k, v_q, v_k, learned)
    expected = (*grads[:4], grads.dbias, grads.dscale)
    for x, y in zip((*ours, *ours_learned.values()), expected, strict=True):
        assert np.allclose(x, y, atol=1e-5)


def test_pool():
    x, weight, values = draw((3, 5, 8), (8,), (3, 5, 4))
    lengths = np.array([5, 0, 2])
    expected = attnext.attention_pool(x, weight, values=values, lengths=lengths)
    pool = jax.jit(
        lambda x, weight, values, lengths: attnext_jax.attention_pool(
            x, weight, values=values, lengths=lengths
        )
    )
    assert same(pool(x, weight, values, lengths), expected)
    grads = jax.grad(lambda *arrays: pool(*arrays, lengths).sum(), (0, 1, 2))(x, weight, values)
    expected = attnext.attention_pool_backward(
        np.ones_like(expected), x, weight, values=values, lengths=lengths
    )
    assert all(map(same, grads, (expected.dx, expected.dweight, expected.dvalues)))
    assert same(
        attnext_jax.attention_pool(x[0], weight, lengths=3),
        attnext.attention_pool(x[0], weight, lengths=3),
    )


FAR = [0, 1, -5, 100_003, 2**24 + 1, 2**31 - 1, -(2**31) + 1]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("layout", ["bhsd", "bshd", "thd"])
def test_rotary(interleaved, layout):
    shapes = {"bhsd": (2, 3, 7, 8), "bshd": (2, 7, 3, 8), "thd": (7, 3, 8)}
    (x,) = draw(shapes[layout])
    options = {"interleaved": interleaved, "layout": layout}
    expected = attnext.rotary(x, np.array(FAR), **options)
    assert same(attnext_jax.rotary(x, np.array(FAR), **options), expected)
    turn = jax.jit(lambda x, positions: attnext_jax.rotary(x, positions, **options))
    assert np.allclose(turn(x, np.array(FAR, np.int32)), expected, atol=2e-6)
    floats = np.linspace(-3, 9, 7, dtype=np.float32)
    assert np.allclose(turn(x, floats), attnext.rotary(x, floats, **options), atol=2e-6)
    (dx,) = jax.vjp(lambda x: turn(x, np.array(FAR, np.int32)), x)[1](expected)
    assert np.allclose(dx, x, atol=4e-6)


def test_rotary_keeps_the_dtype():
    x = jnp.ones((7, 8), jnp.bfloat16)
    assert attnext_jax.rotary(x, np.arange(7)).dtype == jnp.bfloat16


def test_constants():
    assert same(attnext_jax.sinusoidal_positions(5, 7), attnext.sinusoidal_positions(5, 7))
    assert same(attnext_jax.alibi_slopes(6), attnext.alibi_slopes(6))
    assert attnext_jax.dropout_mask is attnext.dropout_mask
