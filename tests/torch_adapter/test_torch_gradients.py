"""Are results and gradients in torch those that torch itself derives from the formula?"""

import pytest

torch = pytest.importorskip("torch")

import torch_formula as formula  # noqa: E402
from torch_formula import CASES, SEQLEN_K, SEQLEN_Q, arrays, differentiable, floats  # noqa: E402

import attnext  # noqa: E402
import attnext.torch  # noqa: E402

gradcheck = torch.autograd.gradcheck
every_case = pytest.mark.parametrize("name", CASES)


def results_and_gradients(function, name):
    options, inputs = CASES[name](), arrays()
    out, lse = function(*inputs, **options)
    dout, dlse = floats(*out.shape, seed=20), floats(*lse.shape, seed=21)
    loss = (out * dout).sum() + torch.where(lse.isfinite(), lse * dlse, 0.0).sum()
    leaves = [*inputs, *differentiable(options).values()]
    return (out, lse, *torch.autograd.grad(loss, leaves))


def by_operator(q, k, v, **options):
    return attnext.torch.attention(q, k, v, return_lse=True, **options)


@every_case
def test_is_what_torch_derives(name):
    found = results_and_gradients(by_operator, name)
    expected = results_and_gradients(formula.attention, name)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@every_case
def test_finite_differences(name):
    options, inputs = CASES[name](), arrays()
    leaves = differentiable(options)

    def call(q, k, v, *values):
        given = dict(zip(leaves, values))
        replaced = options | {x: y for x, y in given.items() if x in options}
        if not isinstance(options.get("score", ""), str):
            replaced["score"] = attnext.AdditiveScore(given["weight"], given.get("score_bias"))
        out, lse = by_operator(q, k, v, **replaced)
        return out, torch.where(lse.isfinite(), lse, 0.0)

    assert gradcheck(call, (*inputs, *leaves.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision(dtype):
    inputs = [x.detach().to(dtype).requires_grad_() for x in arrays()]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    slopes = torch.rand(4, requires_grad=True)
    out, lse = by_operator(*inputs, alibi_slopes=slopes, causal=True)
    expected, expected_lse = formula.attention(*wide, alibi_slopes=slopes, causal=True)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    tolerance = {"rtol": 0.0, "atol": 8 * torch.finfo(dtype).eps, "check_dtype": False}
    torch.testing.assert_close(out, expected, **tolerance)
    torch.testing.assert_close(lse, expected_lse, rtol=0, atol=1e-5, check_dtype=False)
    dout = floats(*out.shape)
    grads = torch.autograd.grad(out, [*inputs, slopes], dout.to(dtype))
    truths = torch.autograd.grad(expected, [*wide, slopes], dout.to(dtype).double())
    for grad, owner, truth in zip(grads, [*inputs, slopes], truths, strict=True):
        assert grad.dtype == owner.dtype
        scale = max(1.0, truth.abs().max().item())
        torch.testing.assert_close(grad, truth, **tolerance | {"atol": tolerance["atol"] * scale})


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_ranks_and_layouts(rank, layout):
    q, k, v = (x.detach()[0] for x in arrays())
    q, k, v = (x[0] for x in (q, k, v)) if rank == 2 else (q, k, v)
    expected = attnext.torch.attention(q, k, v, causal=True, return_lse=True)
    if layout == "bshd" and rank == 3:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    out, lse = by_operator(*inputs, causal=True, layout=layout)
    turned = out.transpose(0, 1) if layout == "bshd" and rank == 3 else out
    assert torch.equal(turned, expected[0])
    assert torch.equal(lse, expected[1])
    assert gradcheck(lambda *x: by_operator(*x, causal=True, layout=layout), inputs)


def packed():
    shapes = ((6, 4, 6), (9, 2, 6), (9, 2, 3))
    return [floats(*x, seed=i).requires_grad_() for i, x in enumerate(shapes)]


PACKED = {"layout": "thd", "cu_seqlens_q": [0, 2, 6], "cu_seqlens_k": torch.tensor([0, 4, 9])}


def test_packed_sequences():
    inputs = packed()
    out, lse = by_operator(*inputs, causal=True, **PACKED)
    q, k, v = (x.transpose(0, 1) for x in inputs)
    second = by_operator(q[:, 2:], k[:, 4:], v[:, 4:], causal=True)
    assert torch.equal(out[2:].transpose(0, 1), second[0])
    assert torch.equal(lse[:, 2:], second[1])
    assert gradcheck(lambda *x: by_operator(*x, causal=True, **PACKED), inputs)


def test_pages_are_read_forward_only():
    q, k, v = (x.detach() for x in arrays())
    pages = [torch.cat([x[0], x[1]], 1).transpose(0, 1).unflatten(0, (7, 2)) for x in (k, v)]
    options = {"block_table": torch.tensor([[0, 1], [5, 6]]), "kv_lengths": [4, 3], "causal": True}
    keys = torch.stack([pages[0][[0, 1]].flatten(0, 1), pages[0][[5, 6]].flatten(0, 1)])
    values = torch.stack([pages[1][[0, 1]].flatten(0, 1), pages[1][[5, 6]].flatten(0, 1)])
    expected = attnext.torch.attention(
        q, keys.transpose(1, 2), values.transpose(1, 2), kv_lengths=[4, 3], causal=True
    )
    assert torch.equal(attnext.torch.attention(q, *pages, **options), expected)
    out = attnext.torch.attention(q.requires_grad_(), *pages, **options)
    with pytest.raises(NotImplementedError, match="attention_backward: block_table"):
        out.sum().backward()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["plain", "all", "all_additive"])
def test_back_ends(name, backend):
    def call(*inputs, **options):
        return by_operator(*inputs, backend=backend, **options)

    found, expected = (results_and_gradients(x, name) for x in (call, formula.attention))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_gradient_of_lse_alone():
    q, k, v = arrays()
    _, lse = by_operator(q, k, v)
    _, expected = formula.attention(q, k, v)
    for x, y in zip(*(torch.autograd.grad(z.sin().sum(), (q, k)) for z in (lse, expected))):
        torch.testing.assert_close(x, y)


def test_gradients_that_arrive_expanded_or_turned():
    q, k, v = arrays()
    out = attnext.torch.attention(q, k, v)
    expected = torch.autograd.grad(out, (q, k, v), torch.ones_like(out), retain_graph=True)
    found = torch.autograd.grad(out.sum(), (q, k, v), retain_graph=True)  # expanded from one 1
    assert all(map(torch.equal, found, expected))
    dout = floats(*out.shape)
    turned = dout.mT.contiguous().mT
    assert not turned.is_contiguous()
    pair = [torch.autograd.grad(out, (q, k, v), x, retain_graph=True) for x in (dout, turned)]
    assert all(map(torch.equal, *pair))


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (3,), (4,)])
def test_only_the_gradients_asked_for(wanted):
    inputs = [x.detach() for x in (*arrays(), floats(SEQLEN_Q, SEQLEN_K), floats(4))]
    for index in wanted:
        inputs[index].requires_grad_()

    def call(q, k, v, bias, sinks):
        return attnext.torch.attention(q, k, v, bias=bias, sinks=sinks)

    out = call(*inputs)
    found = torch.autograd.grad(out.sin().sum(), [inputs[i] for i in wanted])
    for x in inputs:
        x.requires_grad_()
    expected = torch.autograd.grad(call(*inputs).sin().sum(), inputs)
    for index, grad in zip(wanted, found, strict=True):
        assert torch.equal(grad, expected[index])


def test_second_derivatives_are_refused():
    q, k, v = arrays()
    out = attnext.torch.attention(q, k, v)
    (dq,) = torch.autograd.grad(out.sin().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"^attention: the gradient of a gradient"):
        torch.autograd.grad(dq.sum(), q)


def test_views_and_lazy_negation():
    q, k, v = (x.detach() for x in arrays())
    negated = torch._neg_view(q)
    assert torch.equal(attnext.torch.attention(negated, k, v), attnext.torch.attention(-q, k, v))
    expanded = k[:1].expand(2, -1, -1, -1)
    found = attnext.torch.attention(q, expanded, v)
    assert torch.equal(found, attnext.torch.attention(q, expanded.contiguous(), v))


def test_merge():
    def merged(q, k, v):
        halves = [by_operator(q, k[:, :, i::2], v[:, :, i::2]) for i in range(2)]
        return attnext.torch.merge_attention(*zip(*halves))

    inputs = arrays()
    torch.testing.assert_close(merged(*inputs), by_operator(*inputs))
    assert gradcheck(merged, inputs)


def test_merge_can_be_differentiated_twice():
    outs = [floats(2, 4, 5, 3, seed=i).requires_grad_() for i in range(2)]
    lses = [floats(2, 4, 5, seed=i).requires_grad_() for i in range(2)]
    with torch.no_grad():
        lses[0][0] = lses[1][:, 1] = -torch.inf

    def merged(*inputs):
        out, lse = attnext.torch.merge_attention(inputs[:2], inputs[2:])
        return out, torch.where(lse.isfinite(), lse, 0.0)

    loss = sum(x.sin().sum() for x in merged(*outs, *lses))
    first = torch.autograd.grad(loss, (*outs, *lses), create_graph=True)
    second = torch.autograd.grad(sum(x.sin().sum() for x in first), (*outs, *lses))
    assert all(x.isfinite().all() for x in (*first, *second))
    finite = [floats(2, 4, 5, seed=i).requires_grad_() for i in range(2)]
    assert torch.autograd.gradgradcheck(merged, (*outs, *finite))


def test_merge_with_what_saw_nothing():
    q, k, v = arrays()
    nothing = by_operator(q, k, v, kv_lengths=[0, 0])
    out, lse = attnext.torch.merge_attention(*zip(by_operator(q, k, v), nothing))
    torch.testing.assert_close((out, lse), by_operator(q, k, v))
    grads = torch.autograd.grad(out.sum() + lse.sum(), (q, k, v), retain_graph=True)
    expected = torch.autograd.grad(sum(x.sum() for x in by_operator(q, k, v)), (q, k, v))
    torch.testing.assert_close(grads, expected)


@pytest.mark.parametrize("layout", ["bshd", "thd"])
def test_merge_in_other_layouts(layout):
    options = PACKED if layout == "thd" else {"layout": layout}
    inputs = packed() if layout == "thd" else [x.transpose(1, 2).detach() for x in arrays()]
    inputs = [x.requires_grad_() for x in inputs]

    def merged(q, k, v):
        parts = [by_operator(q, k, v, **options), by_operator(q, k, -v, scale=0.1, **options)]
        return attnext.torch.merge_attention(*zip(*parts), layout=layout)

    assert gradcheck(merged, inputs)


WEIGHTS = {
    "all": ({}, None),
    "rows": ({"causal": True}, [1, -1, 1]),
    "options": ({"window": (2, 1), "sinks": floats(4), "softcap": 1.0}, None),
    "bshd": ({"layout": "bshd"}, [0]),
    "packed": ({**PACKED, "causal": True}, [3, 0]),
    "packed_int32": (
        {**PACKED, "cu_seqlens_k": torch.tensor([0, 0, 9], dtype=torch.int32)},
        torch.tensor([5, 0], dtype=torch.int32),
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name):
    options, rows = WEIGHTS[name]
    q, k, _ = packed() if "packed" in name else arrays()
    if name == "bshd":
        q, k = (x.detach().transpose(1, 2).requires_grad_() for x in (q, k))
    p = attnext.torch.attention_weights(q, k, rows=rows, **options)
    numbers = {x: y.numpy() if isinstance(y, torch.Tensor) else y for x, y in options.items()}
    expected = attnext.attention_weights(
        q.detach().numpy(), k.detach().numpy(), rows=rows, **numbers
    )
    assert p.detach().numpy() == pytest.approx(expected, abs=1e-12)
    assert gradcheck(
        lambda q, k: attnext.torch.attention_weights(q, k, rows=rows, **options), (q, k)
    )


def test_weights_with_learned_options():
    q, k, _ = arrays()
    bias, scale = (floats(*shape).requires_grad_() for shape in ((SEQLEN_Q, SEQLEN_K), (4,)))
    assert gradcheck(
        lambda q, k, bias, scale: attnext.torch.attention_weights(
            q, k, bias=bias, scale=scale, dropout=0.5, seed=1
        ),
        (q, k, bias, scale),
    )


def test_stats():
    q, k, v = arrays()
    stats = attnext.torch.attention_stats(q, k, causal=True)
    p = attnext.torch.attention_weights(q, k, causal=True).detach()
    torch.testing.assert_close(stats.key_mass, p.sum(2))
    torch.testing.assert_close(stats.entropy, torch.special.entr(p).sum(-1))
    torch.testing.assert_close(stats.lse, by_operator(q, k, v, causal=True)[1].detach())
    assert not any(field.requires_grad for field in stats)


def bidirectional_inputs():
    q, k, v_k = arrays()
    return q, k, floats(2, 4, SEQLEN_Q, 3).requires_grad_(), v_k


@pytest.mark.parametrize("name", ["plain", "causal", "mask", "dropout", "lengths", "cosine"])
def test_bidirectional(name):
    options, inputs = CASES[name](), bidirectional_inputs()
    found = attnext.torch.bidirectional_attention(*inputs, return_lse=True, **options)
    q, k, _, v_k = inputs
    torch.testing.assert_close(found[0], attnext.torch.attention(q, k, v_k, **options))
    tensors = {x: y.numpy() if isinstance(y, torch.Tensor) else y for x, y in options.items()}
    plain = [x.detach().numpy() for x in inputs]
    expected = attnext.bidirectional_attention(*plain, return_lse=True, **tensors)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x.detach(), torch.from_numpy(y), rtol=1e-9, atol=1e-9)

    def finite(*x):
        results = attnext.torch.bidirectional_attention(*x, return_lse=True, **options)
        return tuple(torch.where(y.isfinite(), y, 0.0) for y in results)

    assert gradcheck(finite, inputs, fast_mode=True)


def test_bidirectional_with_learned_options():
    bias, slopes = floats(SEQLEN_Q, SEQLEN_K).requires_grad_(), floats(4).requires_grad_()
    score = formula.additive(bias=(6,))

    def call(q, k, v_q, v_k, bias, slopes, *score):
        return attnext.torch.bidirectional_attention(
            q, k, v_q, v_k, bias=bias, alibi_slopes=slopes, score=attnext.AdditiveScore(*score),
            return_lse=True,
        )  # fmt: skip

    assert gradcheck(call, (*bidirectional_inputs(), bias, slopes, *score), fast_mode=True)


def test_bidirectional_gradient_of_one_direction():
    q, k, v_q, v_k = bidirectional_inputs()
    out_q, _ = attnext.torch.bidirectional_attention(q, k, v_q, v_k)
    expected = torch.autograd.grad(attnext.torch.attention(q, k, v_k).sum(), (q, k, v_k))
    torch.testing.assert_close(torch.autograd.grad(out_q.sum(), (q, k, v_k)), expected)


@pytest.mark.parametrize("has_values", [False, True])
@pytest.mark.parametrize("rank", [2, 3])
def test_pool(has_values, rank):
    x, weight, values = floats(3, 5, 4), floats(4), floats(3, 5, 2)
    lengths = [5, 0, 2]
    if rank == 2:
        x, values, lengths = x[2], values[2], 2
    inputs = [y.requires_grad_() for y in ((x, weight, values) if has_values else (x, weight))]

    def pool(x, weight, values=None):
        return attnext.torch.attention_pool(x, weight, values=values, lengths=lengths)

    plain = [y.detach().numpy() for y in inputs]
    expected = attnext.attention_pool(
        *plain[:2], values=plain[2] if has_values else None, lengths=lengths
    )
    torch.testing.assert_close(pool(*inputs).detach(), torch.from_numpy(expected))
    assert gradcheck(pool, inputs)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved):
    x = floats(2, 3, 5, 6).requires_grad_()
    places = torch.tensor([[0, 1, 2, 3, 4], [7, 9, 1, 0, 2]])

    def turn(x):
        return attnext.torch.rotary(x, places, interleaved=interleaved)

    expected = attnext.rotary(x.detach().numpy(), places.numpy(), interleaved=interleaved)
    torch.testing.assert_close(turn(x).detach(), torch.from_numpy(expected))
    assert gradcheck(turn, x)
    assert torch.autograd.gradgradcheck(turn, x)
    order = torch.arange(5)
    assert torch.equal(attnext.torch.rotary(x), attnext.torch.rotary(x, order))
    bshd = attnext.torch.rotary(x.transpose(1, 2), layout="bshd")
    assert torch.equal(bshd.transpose(1, 2), attnext.torch.rotary(x))


def test_tables_are_attnexts():
    slopes, table = attnext.torch.alibi_slopes(6), attnext.torch.sinusoidal_positions(7, 5)
    assert slopes.tolist() == attnext.alibi_slopes(6).tolist()
    assert table.tolist() == attnext.sinusoidal_positions(7, 5).tolist()
    for seed in (3, 2**64 - 1):
        keep = attnext.torch.dropout_mask((2, 3, 5, 7), 0.4, seed, stream=1)
        assert keep.tolist() == attnext.dropout_mask((2, 3, 5, 7), 0.4, seed, stream=1).tolist()
