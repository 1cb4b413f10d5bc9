"""Do vmap and torch.func see in an operator what a loop over its samples sees?"""

import pytest

torch = pytest.importorskip("torch")

from functools import partial  # noqa: E402

import torch_formula as formula  # noqa: E402
from torch.func import grad, jacrev, vmap  # noqa: E402
from torch_formula import arrays, floats  # noqa: E402

import attnext.torch  # noqa: E402


def three(*shape, seed):
    return floats(3, *shape, seed=seed)


BATCHED = (
    three(2, 4, 5, 6, seed=0), three(2, 2, 7, 6, seed=1), three(2, 2, 7, 3, seed=2)
)  # fmt: skip


def assert_like_a_loop(function, in_dims, *inputs):
    found = vmap(function, in_dims=in_dims, randomness="same")(*inputs)
    expected = torch.stack([
        function(*(x if d is None else x.select(d, i) for x, d in zip(inputs, in_dims)))
        for i in range(3)
    ])  # fmt: skip
    torch.testing.assert_close(found, expected)


def sum_of_sines(call, *inputs):
    return call(*inputs).sin().sum()


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, None), (None, 0, 0), (2, None, 0)])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"causal": True}, {"mask": floats(5, 7) > 0}, {"bias": floats(2, 1, 5, 7)},
        {"kv_lengths": [3, 7]}, {"dropout": 0.5, "seed": 1}, {"alibi_slopes": floats(4)},
        {"alibi_slopes": floats(2, 4)}, {"q_offset": torch.tensor([1, 3])}, {"scale": floats(4)},
    ],
    ids=lambda options: "-".join(options) or "plain",
)  # fmt: skip
def test_vmap(in_dims, options):
    inputs = [x[0] if d is None else x.movedim(0, d) for x, d in zip(BATCHED, in_dims, strict=True)]

    def call(q, k, v):
        return attnext.torch.attention(q, k, v, **options)

    assert_like_a_loop(call, in_dims, *inputs)
    for argnums in range(3):
        assert_like_a_loop(grad(partial(sum_of_sines, call), argnums=argnums), in_dims, *inputs)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_vmap_of_lower_ranks(rank, layout):
    inputs = [x[:, 0, 0] if rank == 2 else x[:, 0] for x in BATCHED]
    if rank == 3 and layout == "bshd":
        inputs = [x.transpose(1, 2) for x in inputs]

    def call(q, k, v):
        out, lse = attnext.torch.attention(q, k, v, layout=layout, causal=True, return_lse=True)
        return out.sum(-1).flatten() + lse.flatten()

    assert_like_a_loop(call, (0, 0, 0), *inputs)
    assert_like_a_loop(grad(partial(sum_of_sines, call), 1), (0, 0, 0), *inputs)


def test_vmap_over_options():
    q, k, v = BATCHED
    bias, seeds = three(1, 4, 1, 7, seed=3), torch.arange(3)

    def call(q, bias, seed):
        return attnext.torch.attention(q, k[0], v[0], bias=bias, dropout=0.5, seed=seed)

    assert_like_a_loop(call, (0, 0, 0), q, bias, seeds)
    assert_like_a_loop(grad(partial(sum_of_sines, call), 1), (0, 0, 0), q, bias, seeds)
    # One bias for all, and yet a gradient for each sample.
    assert_like_a_loop(grad(partial(sum_of_sines, call), 1), (0, None, 0), q, bias[0], seeds)


def test_vmap_of_the_other_functions():
    q, k, v = BATCHED
    for call in (
        lambda q, k, v: attnext.torch.attention_stats(q, k).key_mass,
        lambda q, k, v: attnext.torch.attention_weights(q, k, rows=[1]),
        lambda q, k, v: attnext.torch.rotary(q),
        lambda q, k, v: attnext.torch.attention_pool(k[0], q[0, 0, 0]),
    ):
        assert_like_a_loop(call, (0, 0, 0), q, k, v)

    def merged(q, k, v):
        parts = [
            attnext.torch.attention(q, k[:, :, i::2], v[:, :, i::2], return_lse=True)
            for i in range(2)
        ]
        return attnext.torch.merge_attention(*zip(*parts))[0]

    def paired(q, k, v):
        out_q, out_k = attnext.torch.bidirectional_attention(q, k, q, k.sin())
        return torch.cat([out_q, out_k], 2)

    for call in (merged, paired):
        assert_like_a_loop(call, (0, 0, 0), q, k, v)
        assert_like_a_loop(grad(partial(sum_of_sines, call)), (0, 0, 0), q, k, v)


def test_func_grad_and_jacobian():
    q, k, v = (x.detach() for x in arrays())
    found = jacrev(lambda q: attnext.torch.attention(q, k, v))(q)
    expected = jacrev(lambda q: formula.attention(q, k, v)[0])(q)
    torch.testing.assert_close(found, expected)


def test_func_refuses_second_derivatives():
    q, k, v = (x.detach() for x in arrays())

    def loss(q):
        return attnext.torch.attention(q, k, v).sin().sum()

    with pytest.raises(NotImplementedError, match=r"^attention: the gradient of a gradient"):
        grad(lambda q: grad(loss)(q).sum())(q)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_forward_mode_is_refused():
    q, k, v = (x.detach() for x in arrays())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, q)
        assert torch.equal(
            attnext.torch.attention(q, k, v), attnext.torch.attention(q.clone(), k, v)
        )
        with pytest.raises(NotImplementedError, match=r"^attention: forward-mode derivatives"):
            attnext.torch.attention(dual, k, v)
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda q: attnext.torch.attention(q, k, v), (q,), (q,))


def test_compiled_vmap():
    def call(q, k, v):
        return vmap(lambda q: attnext.torch.attention(q, k[0], v[0], causal=True))(q)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*BATCHED), call(*BATCHED))


def test_vmap_over_no_samples():
    q, k, v = (x[:0] for x in BATCHED)
    assert vmap(attnext.torch.attention)(q, k, v).shape == (0, 2, 4, 5, 3)
    with pytest.raises(ValueError, match=r"^rotary: vmap must have at least one sample"):
        vmap(attnext.torch.rotary)(q)


def test_stats_inside_func_grad():
    q, k, v = (x.detach() for x in arrays())

    def loss(q):
        stats = attnext.torch.attention_stats(q, k)
        return attnext.torch.attention(q, k, v).sum() * stats.entropy.sum(), stats

    found, stats = grad(loss, has_aux=True)(q)
    q.requires_grad_()
    (expected,) = torch.autograd.grad(attnext.torch.attention(q, k, v).sum(), q)
    torch.testing.assert_close(found, expected * stats.entropy.sum())
