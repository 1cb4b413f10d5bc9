"""Do JAX's transforms mean the same for attnext's attention as for any function?"""

import itertools

import numpy as np
import pytest
from bits import same

import attnext

jax = pytest.importorskip("jax")
jnp = jax.numpy
import attnext.jax as attnext_jax  # noqa: E402

attention = attnext_jax.attention


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes]


def loss(q, k, v, options):
    out, lse = attention(q, k, v, causal=True, return_lse=True, **options)
    return (out**2).sum() + jnp.sin(lse).sum()


SHAPES = {  # of one example
    "q": (2, 9, 8), "k": (2, 9, 8), "v": (2, 9, 8), "bias": (2, 9, 9), "sinks": (2,),
    "alibi_slopes": (2,), "scale": (2,),
}  # fmt: skip
BATCHED = [
    ("q",), ("k", "v"), ("q", "k", "v"), ("bias",), ("q", "bias"), ("sinks",), ("alibi_slopes",),
    ("q", "k", "v", "alibi_slopes"), ("scale",), tuple(SHAPES),
]  # fmt: skip


@pytest.mark.parametrize("batched", BATCHED, ids="-".join)
@pytest.mark.parametrize("learned", [(), ("bias",), ("bias", "sinks", "alibi_slopes", "scale")])
def test_vmap_is_a_loop(batched, learned):
    count = 3
    used = {"q", "k", "v", *batched, *learned}
    arrays = {
        name: draw((count, *shape) if name in batched else shape)[0]
        for name, shape in SHAPES.items()
        if name in used
    }

    def example(arrays):
        options = {name: x for name, x in arrays.items() if name not in ("q", "k", "v")}
        return loss(arrays["q"], arrays["k"], arrays["v"], options)

    axes = ({name: 0 if name in batched else None for name in arrays},)
    for function in (example, jax.grad(example)):
        together = jax.jit(jax.vmap(function, in_axes=axes))(arrays)
        alone = [
            function({name: x[i] if name in batched else x for name, x in arrays.items()})
            for i in range(count)
        ]
        expected = jax.tree.map(lambda *examples: np.stack(examples), *alone)
        assert jax.tree.all(jax.tree.map(_close, together, expected))


def _close(x, y):
    return np.allclose(x, y, rtol=1e-5, atol=1e-5)


def test_vmap_twice_is_attention_of_a_batch():
    q, k, v = draw((2, 3, 9, 8), (2, 3, 9, 8), (2, 3, 9, 8))
    assert same(jax.vmap(jax.vmap(attention))(q, k, v), attention(q, k, v))
    crossed = jax.vmap(jax.vmap(attention, (0, None, 0)), (0, 0, None))(q, k[:, 0], v[0])
    for i, j in itertools.product(range(2), range(3)):
        assert same(crossed[i, j], attention(q[i, j], k[i, 0], v[0, j]))


def test_vmap_over_lengths_and_offsets():
    q, k, v = draw((4, 2, 9, 8), (4, 2, 9, 8), (4, 2, 9, 8))
    lengths, offsets = jnp.array([9, 0, 3, 5]), jnp.array([0, 2, -1, 4])
    options = {"kv_lengths": lengths, "q_offset": offsets, "causal": True}
    expected = attention(q, k, v, **options)

    def one(q, k, v, length, offset):
        return attention(q, k, v, kv_lengths=length[None], q_offset=offset, causal=True)

    assert same(jax.vmap(one)(q, k, v, lengths, offsets), expected)


def test_vmap_of_packed_and_paged_sequences():
    q, k, v = draw((3, 12, 2, 8), (3, 12, 2, 8), (3, 12, 2, 8))
    starts = jnp.array([[0, 5, 12], [0, 0, 12], [0, 11, 12]])

    def packed(q, k, v, starts):
        return attention(q, k, v, layout="thd", cu_seqlens_q=starts, cu_seqlens_k=starts)

    together = jax.jit(jax.vmap(packed))(q, k, v, starts)
    assert same(together, np.stack([packed(*x) for x in zip(q, k, v, starts, strict=True)]))
    queries, pages = draw((2, 1, 2, 3, 8), (5, 4, 2, 8))
    tables, lengths = jnp.array([[[4, 0]], [[1, 3]]]), jnp.array([[6], [3]])

    def paged(q, table, lengths):
        return attention(q, pages, pages, block_table=table, kv_lengths=lengths)

    together = jax.vmap(paged)(queries, tables, lengths)
    assert same(together, np.stack([paged(*x) for x in zip(queries, tables, lengths, strict=True)]))


def test_dropout_under_vmap_is_that_of_one_example():
    q, k, v = draw((2, 2, 9, 8), (2, 2, 9, 8), (2, 2, 9, 8))
    alone = attention(q, k, v, dropout=0.4, seed=3)
    together = jax.vmap(lambda q: attention(q, k, v, dropout=0.4, seed=3))(jnp.stack([q, q]))
    assert same(together[0], alone)
    assert same(together[1], alone)
    seeds = jax.vmap(lambda seed: attention(q, k, v, dropout=0.4, seed=seed))(jnp.arange(3, 5))
    assert same(seeds[0], alone)
    assert not same(seeds[1], alone)


def test_seeds():
    q, k, v = draw((2, 9, 8), (2, 9, 8), (2, 9, 8))
    large = 2**63 + 5
    expected = attnext.attention(*map(np.asarray, (q, k, v)), dropout=0.4, seed=large)
    assert same(attention(q, k, v, dropout=0.4, seed=large), expected)
    key = jax.random.key(5)
    with_key = attention(q, k, v, dropout=0.4, seed=key)
    assert same(jax.jit(lambda key: attention(q, k, v, dropout=0.4, seed=key))(key), with_key)
    assert not same(attention(q, k, v, dropout=0.4, seed=jax.random.key(6)), with_key)


def test_a_scalar_scale_has_a_gradient():
    q, k, v = draw((2, 9, 8), (2, 9, 8), (2, 9, 8))
    of_scalar = jax.grad(lambda scale: attention(q, k, v, scale=scale).sum())(jnp.float32(0.3))
    of_heads = jax.grad(lambda scale: attention(q, k, v, scale=scale).sum())(jnp.full(2, 0.3))
    assert np.isclose(of_scalar, of_heads.sum(), rtol=1e-5)


def test_checkpoint():
    q, k, v, bias = draw((2, 9, 8), (2, 9, 8), (2, 9, 8), (9, 9))
    kept, again = (
        jax.jit(jax.grad(f, (0, 1, 2, 3)))(q, k, v, {"bias": bias})
        for f in (loss, jax.checkpoint(loss))
    )
    assert jax.tree.all(jax.tree.map(same, kept, again))


def test_only_wanted_gradients_are_computed():
    """The gradient of a bias has its size: it is not made for a bias that is a constant."""
    q, k, v, bias = draw((2, 9, 8), (2, 9, 8), (2, 9, 8), (2, 9, 9))
    text = str(jax.make_jaxpr(jax.grad(loss))(q, k, v, {"bias": bias}))
    assert "dbias" not in text
    text = str(jax.make_jaxpr(jax.grad(loss, 3))(q, k, v, {"bias": bias}))
    assert "dbias" in text


def test_forward_mode_is_refused_by_jax():
    (q,) = draw((2, 9, 8))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda q: attention(q, q, q), (q,), (q,))
    with pytest.raises(ValueError, match=r"cannot be differentiated|do not support JVP"):
        jax.grad(lambda q: jax.grad(lambda q: attention(q, q, q).sum())(q).sum())(q)


SHARDED = """
import jax, numpy as np
import attnext.jax
P = jax.sharding.PartitionSpec
assert len(jax.devices()) == 2
mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 4, 2, 9, 8), dtype=np.float32)
bias, sinks = rng.standard_normal((2, 9, 9), dtype=np.float32), np.float32([0.5, -1])
def loss(q, k, v, bias, sinks):
    out, lse = attnext.jax.attention(q, k, v, bias=bias, sinks=sinks, causal=True, return_lse=True)
    return (out**2).sum() + lse.sum()
specs = (P("x"), P("x"), P("x"), P(), P())
def on_both(*arrays):
    part = lambda *arrays: jax.lax.psum(loss(*arrays), "x")
    return jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=P())(*arrays)
arrays = (q, k, v, bias, sinks)
both = jax.jit(jax.value_and_grad(on_both, tuple(range(5))))(*arrays)
alone = jax.value_and_grad(loss, tuple(range(5)))(*arrays)
for ours, expected in zip(jax.tree.leaves(both), jax.tree.leaves(alone)):
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
turned = jax.shard_map(
    lambda q, k, v: attnext.jax.merge_attention(*zip(*(
        attnext.jax.attention(q, *(jax.lax.ppermute(x, "x", [(i, (i + hop) % 2) for i in range(2)])
                                   for x in (k, v)), return_lse=True) for hop in range(2))))[0],
    mesh=mesh, in_specs=P(None, None, "x"), out_specs=P(None, None, "x"))
ring = jax.jit(turned)(q[:, :, :8], k[:, :, :8], v[:, :, :8])
whole = attnext.jax.attention(q[:, :, :8], k[:, :, :8], v[:, :, :8])
np.testing.assert_allclose(ring, whole, rtol=1e-5, atol=1e-6)
print("done")
"""


def test_shard_map_on_two_devices(run_python):
    flags = "--xla_force_host_platform_device_count=2"
    assert run_python(SHARDED, XLA_FLAGS=flags, JAX_PLATFORMS="cpu").endswith("done\n")


WITHOUT_FOREIGN_FUNCTIONS = """
import warnings
import jax, numpy as np
import attnext
from attnext.jax import targets
targets._library_path = lambda: "/nowhere/libattnext_jax.so"
q, k, v = np.random.default_rng(0).standard_normal((3, 2, 4, 9, 8), dtype=np.float32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    def loss(q, k, v):
        out, lse = attnext.jax.attention(q, k, v, causal=True, return_lse=True)
        return (out**2).sum() + lse.sum()
    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)
    shared = jax.vmap(lambda q: attnext.jax.attention(q, k[0], v[0], dropout=0.3, seed=1))(q)
    p = attnext.jax.attention_weights(q, k, rows=[3, 0])
    stats = attnext.jax.attention_stats(q, k)
    starts = np.array([0, 4, 9])
    packed = attnext.jax.attention(
        *(x[0].swapaxes(0, 1) for x in (q, k, v)), layout="thd", cu_seqlens_q=starts,
        cu_seqlens_k=starts)
ours = [w for w in caught if "pure_callback" in str(w.message)]
assert len(ours) == 1 and "ATTNEXT_JAX=pip" in str(ours[0].message), caught
out, vjp = attnext.attention_vjp(q, k, v, causal=True, return_lse=True)
expected = vjp(2 * out[0], np.ones_like(out[1]))
assert all(np.array_equal(a, b) for a, b in zip(grads, expected))
for i in range(2):
    assert np.array_equal(shared[i], attnext.attention(q[i], k[0], v[0], dropout=0.3, seed=1))
assert np.array_equal(p, attnext.attention_weights(q, k, rows=[3, 0]))
assert all(map(np.array_equal, stats, attnext.attention_stats(q, k)))
assert np.array_equal(packed, attnext.attention(
    *(x[0].swapaxes(0, 1) for x in (q, k, v)), layout="thd", cu_seqlens_q=starts,
    cu_seqlens_k=starts))
print("done")
"""


def test_without_foreign_functions_it_calls_back_and_says_so_once(run_python):
    assert run_python(WITHOUT_FOREIGN_FUNCTIONS).endswith("done\n")
