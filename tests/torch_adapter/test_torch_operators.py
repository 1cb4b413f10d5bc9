"""Do the operators do what torch asks of its own? Compile, export, autocast, fake tensors."""

import pytest

torch = pytest.importorskip("torch")

from torch.utils._pytree import tree_map_only  # noqa: E402
from torch_formula import CASES, arrays, differentiable, floats  # noqa: E402

import attnext.torch  # noqa: E402
from attnext.torch.options import encode  # noqa: E402

OPS = torch.ops.attnext
CHECKED = (
    "plain", "scale_learned_once", "q_offsets", "mask", "bias_expanded", "dropout", "lengths",
    "all", "all_additive",
)  # fmt: skip
PACKED = {
    "layout": "thd", "cu_seqlens_q": torch.tensor([0, 2, 6]),
    "cu_seqlens_k": torch.tensor([0, 4, 9]), "causal": True,
}  # fmt: skip


def packed():
    shapes = ((6, 4, 6), (9, 2, 6), (9, 2, 3))
    return [floats(*x, seed=i).requires_grad_() for i, x in enumerate(shapes)]


def pair_values():
    q, k, v_k = arrays()
    return q, k, floats(2, 4, 5, 3).requires_grad_(), v_k


def samples():
    """Every operator with arguments: its name, and what to call it with."""
    q, k, v = arrays()
    for name in CHECKED:
        yield "attention", name, (q, k, v, *encode("attention", q, CASES[name]()))
    p = packed()
    yield "attention", "packed", (*p, *encode("attention", p[0], PACKED))
    turned = [x.detach().transpose(1, 2).to(torch.bfloat16) for x in (q, k, v)]
    yield "attention", "bshd", (*turned, *encode("attention", q, {"layout": "bshd"}))
    plain, causal = encode("attention", q, {}), encode("attention", q, {"causal": True})
    results = attnext.torch.attention(q, k, v, return_lse=True)
    dout, dlse = (torch.ones_like(x) for x in results)
    done = (dout, dlse, q, k, v, *results)
    done = [x.detach() for x in done]
    yield "attention_backward", "plain", (*done, *plain, [True] * 3 + [False] * 6)
    expanded = [floats(1).expand(dout.shape), None, *done[2:]]
    yield "attention_backward", "expanded", (*expanded, *plain, [True] + [False] * 8)
    bias = encode("attention", q, {"bias": floats(7)})
    yield "attention_backward", "bias", (*done, *bias, [False] * 3 + [True] + [False] * 5)
    empty = torch.empty(2, 4, 5, 3, dtype=torch.float64)
    yield "attention_into", "plain", (*(x.detach() for x in (q, k, v)), *plain, empty)
    rows = torch.tensor([1, -1])
    yield "attention_weights", "all", (q, k, None, *causal)
    yield "attention_weights", "rows", (q, k, rows, *causal)
    yield "attention_stats", "plain", (q.detach(), k.detach(), *causal)
    pair = pair_values()
    yield "bidirectional_attention", "plain", (*pair, *causal)
    outs = attnext.torch.bidirectional_attention(*pair, return_lse=True)
    done = [x.detach() for x in (*map(torch.ones_like, outs), *pair, *outs)]
    yield "bidirectional_attention_backward", "plain", (*done, *plain, [True] * 4 + [False] * 6)
    parts = [[x.detach().requires_grad_() for x in pair] for pair in zip(results, results)]
    yield "merge_attention", "plain", (*parts, "bhsd")
    yield "rotary", "plain", (q, torch.arange(5), 10000.0, False, "bhsd", False)
    yield "dropout_mask", "plain", (torch.tensor(3), [2, 4, 5, 7], 0.5, 0)
    yield "alibi_slopes", "plain", (4,)
    yield "sinusoidal_positions", "plain", (5, 4)


def as_leaf(x):
    return x.detach().requires_grad_(x.requires_grad)


SAMPLES = {
    f"{operator}-{name}": (operator, tree_map_only(torch.Tensor, as_leaf, arguments))
    for operator, name, arguments in samples()
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name):
    operator, arguments = SAMPLES[name]
    torch.library.opcheck(getattr(OPS, operator).default, arguments)


def test_every_operator_is_checked():
    operators = {name for name in torch._C._dispatch_get_all_op_names() if "attnext::" in name}
    assert {f"attnext::{operator}" for operator, _ in SAMPLES.values()} == operators


def results_and_gradients(function, inputs, leaves):
    results = function(*inputs)
    loss = sum(torch.where(x.isfinite(), x, 0.0).sin().sum() for x in results)
    return (*results, *torch.autograd.grad(loss, leaves))


@pytest.fixture(autouse=True)
def _forget_graphs():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize("name", ["plain", "scale_learned_once", "q_offset", "lengths", "all"])
def test_compile(name, is_dynamic):
    options = CASES[name]()

    def call(q, k, v):
        return attnext.torch.attention(q, k, v, return_lse=True, **options)

    compiled = torch.compile(call, fullgraph=True, dynamic=is_dynamic, backend="aot_eager")
    inputs = arrays()
    leaves = [*inputs, *differentiable(options).values()]
    expected = results_and_gradients(call, inputs, leaves)
    found = results_and_gradients(compiled, inputs, leaves)
    torch.testing.assert_close(found, expected)


def everything(q, k, v, seed):
    """Calls every function of the interface."""
    slopes = attnext.torch.alibi_slopes(4).to(q)
    table = attnext.torch.sinusoidal_positions(q.shape[2], q.shape[3]).to(q)
    q = attnext.torch.rotary(q + table)
    out, lse = attnext.torch.attention(
        q, k, v, alibi_slopes=slopes, dropout=0.3, seed=seed, return_lse=True
    )
    merged = attnext.torch.merge_attention([out, out], [lse, 2 * lse])
    pair = attnext.torch.bidirectional_attention(q, k, out, v, window=(2, 2))
    p = attnext.torch.attention_weights(q, k, rows=[0, 1])
    pooled = attnext.torch.attention_pool(k[:, 0], q[0, 0, 0])
    stats = attnext.torch.attention_stats(q, k)
    keep = attnext.torch.dropout_mask((2, q.shape[2]), 0.5, seed)
    like_torch = attnext.torch.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    return (*merged, *pair, p, pooled, like_torch, stats.entropy, keep.double())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compile_everything_to_machine_code():
    compiled = torch.compile(everything, fullgraph=True, dynamic=True)
    for length in (5, 6):
        q, k, v = arrays()
        q = floats(2, 4, length, 6).requires_grad_()
        inputs = (q, k, v, torch.tensor(7))
        expected = results_and_gradients(everything, inputs, (q, k, v))
        found = results_and_gradients(compiled, inputs, (q, k, v))
        torch.testing.assert_close(found, expected)


def test_compiled_seeds_may_change():
    compiled = torch.compile(
        lambda q, k, v, seed: attnext.torch.attention(q, k, v, dropout=0.5, seed=seed),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    inputs = arrays()
    for seed in (1, 2, 3):
        expected = attnext.torch.attention(*inputs, dropout=0.5, seed=seed)
        assert torch.equal(compiled(*inputs, seed), expected)


def test_compiled_out():
    q, k, v = (x.detach() for x in arrays())

    def call(q, k, v, out):
        return attnext.torch.attention(q, k, v, out=out) + 1

    out = torch.zeros(2, 4, 5, 3, dtype=torch.float64)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v, out), out + 1)
    assert torch.equal(out, attnext.torch.attention(q, k, v))


class Model(torch.nn.Module):
    """Attention with options."""

    def forward(self, q, k, v):
        return attnext.torch.attention(q, k, v, causal=True, window=(3, 0), scale=0.3)


def test_export():
    q, k, v = (x.detach() for x in arrays())
    length = torch.export.Dim("length", min=2)
    exported = torch.export.export(Model(), (q, k, v), dynamic_shapes=({2: length}, None, None))
    targets = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert OPS.attention.default in targets
    for queries in (q, floats(2, 4, 9, 6)):
        assert torch.equal(exported.module()(queries, k, v), Model()(queries, k, v))


def test_export_of_lengths_that_values_decide():
    q, k, _ = (x.detach() for x in packed())

    class Weights(torch.nn.Module):
        """Weights of packed sequences."""

        def forward(self, q, k, cu_seqlens_k):
            options = {**PACKED, "cu_seqlens_k": cu_seqlens_k}
            return attnext.torch.attention_weights(q, k, **options)

    offsets = torch.tensor([0, 4, 9])
    exported = torch.export.export(Weights(), (q, k, offsets))
    for offsets in (torch.tensor([0, 4, 9]), torch.tensor([0, 2, 9])):
        assert torch.equal(exported.module()(q, k, offsets), Weights()(q, k, offsets))


@pytest.mark.parametrize("name", SAMPLES)
def test_shapes_dtypes_and_strides_are_announced_exactly(name):
    from torch._subclasses.fake_tensor import FakeTensorMode

    operator, arguments = SAMPLES[name]
    call = getattr(OPS, operator).default
    with FakeTensorMode(allow_non_fake_inputs=True, static_shapes=True) as mode:
        fakes = tree_map_only(torch.Tensor, lambda x: mode.from_tensor(x.detach()), arguments)
        announced = call(*fakes)
    found = call(*tree_map_only(torch.Tensor, lambda x: x.detach(), arguments))
    single = isinstance(found, torch.Tensor)
    for x, y in zip(
        [announced] if single else announced, [found] if single else found, strict=True
    ):
        assert (x.shape, x.dtype, x.stride()) == (y.shape, y.dtype, y.stride())


def test_meta_tensors_have_shapes():
    q, k, v = (x.detach().to("meta") for x in arrays())
    out, lse = attnext.torch.attention(q, k, v, return_lse=True)
    assert out.is_meta
    assert (out.shape, lse.shape) == ((2, 4, 5, 3), (2, 4, 5))


def test_pooling_makes_its_query_where_x_is():
    x = torch.zeros(2, 5, 3, device="meta")
    query, *_ = attnext.pooling._as_attention(x, torch.zeros(3), None, None)
    assert query.device == x.device


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    q, k, v = (x.detach().float().requires_grad_() for x in arrays())
    bias = torch.randn(5, 7, requires_grad=True)
    with torch.autocast("cpu", dtype):
        out, lse = attnext.torch.attention(q, k, v, bias=bias, return_lse=True)
        pair = attnext.torch.bidirectional_attention(q, k, q, k)
        p = attnext.torch.attention_weights(q, k)
    assert {x.dtype for x in (out, *pair, p)} == {dtype}
    assert lse.dtype == torch.float32
    cast = [x.to(dtype) for x in (q, k, v)]
    assert torch.equal(out, attnext.torch.attention(*cast, bias=bias))
    grads = torch.autograd.grad(out.float().sum(), (q, k, v, bias))
    assert {x.dtype for x in grads} == {torch.float32}


def test_autocast_leaves_float64_alone():
    with torch.autocast("cpu", torch.bfloat16):
        assert attnext.torch.attention(*arrays()).dtype == torch.float64


def test_compiled_autocast():
    q, k, v = (x.detach().float() for x in arrays())

    def call(q, k, v):
        with torch.autocast("cpu", torch.bfloat16):
            return attnext.torch.attention(q, k, v)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v), call(q, k, v))


def test_checkpoint_draws_the_same_dropout():
    q, k, v = arrays()

    def call(q, k, v):
        return attnext.torch.scaled_dot_product_attention(
            q, k, v, dropout_p=0.5, enable_gqa=True
        ).sin()

    torch.manual_seed(0)
    expected = torch.autograd.grad(call(q, k, v).sum(), (q, k, v))
    torch.manual_seed(0)
    out = torch.utils.checkpoint.checkpoint(call, q, k, v, use_reentrant=False)
    assert all(map(torch.equal, torch.autograd.grad(out.sum(), (q, k, v)), expected))


def test_kept_graph_and_second_backward():
    q, k, v = arrays()
    out = attnext.torch.attention(q, k, v)
    first = torch.autograd.grad(out.sum(), q, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(out.sum(), q)[0])


def test_inputs_changed_in_place_are_noticed():
    q, k, v = arrays()
    out = attnext.torch.attention(q, k, v)
    with torch.no_grad():
        k.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
