"""Is attnext torch's own attention where it takes its place? Every convention, and its way back."""

import warnings
from itertools import product

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention as torch_sdpa  # noqa: E402

import attnext.torch as at  # noqa: E402
from attnext.torch import provider  # noqa: E402


def floats(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


Q, K, V = (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3)
MASKS = {
    "none": lambda: None,
    "bool": lambda: floats(2, 1, 5, 7, seed=4) > -0.5,
    "bool_rows": lambda: (floats(5, 1, seed=4) > 0).expand(5, 7),
    "bool_keys": lambda: torch.tensor([[True] * 4 + [False] * 3, [True] * 7])[:, None, None],
    "float": lambda: floats(1, 4, 5, 7, seed=4),
    "float_inf": lambda: torch.where(floats(5, 7, seed=4) > 0, 0.0, -torch.inf).double(),
}
SHAPES = {
    "usual": (Q, Q, Q),
    "cross": (Q, K, V),
    "one_batch": (Q, (1, 4, 7, 6), (1, 4, 7, 3)),
    "one_head": (Q, (2, 1, 7, 6), (2, 1, 7, 3)),
    "rank_2": ((5, 6), (7, 6), (7, 3)),
    "rank_3": ((4, 5, 6), (4, 7, 6), (4, 7, 3)),
    "rank_5": ((3, 2, 4, 5, 6), (3, 2, 4, 7, 6), (2, 4, 7, 3)),
    "no_queries": ((2, 4, 0, 6), K, V),
    "no_keys": (Q, (2, 4, 0, 6), (2, 4, 0, 3)),
}


def by_math(*inputs, **options):
    """Torch's formula; where it refuses mask and causal together, as its CPU kernel has them."""
    mask, is_causal = options.get("attn_mask"), options.pop("is_causal", False)
    if is_causal:
        visible = torch.ones(inputs[0].shape[-2], inputs[1].shape[-2], dtype=torch.bool).tril()
        if mask is None or mask.dtype == torch.bool:
            mask = visible if mask is None else visible & mask
        else:
            mask = mask.masked_fill(~visible, -torch.inf)
    with sdpa_kernel(SDPBackend.MATH):
        return torch_sdpa(*inputs, **options | {"attn_mask": mask})


def results_and_gradients(function, shapes, **options):
    inputs = [floats(*x, seed=i).requires_grad_() for i, x in enumerate(shapes)]
    mask = options.get("attn_mask")
    leaves = inputs
    if mask is not None and mask.is_floating_point() and mask.isfinite().all():
        options["attn_mask"] = mask.clone().requires_grad_()
        leaves = [*inputs, options["attn_mask"]]
    out = function(*inputs, **options)
    return (out, *torch.autograd.grad((out * floats(*out.shape, seed=9)).sum(), leaves))


def overridden(*inputs, **options):
    with at.override_sdpa():
        return torch_sdpa(*inputs, **options)


@pytest.fixture(params=["function", "override"])
def sdpa(request):
    return at.scaled_dot_product_attention if request.param == "function" else overridden


@pytest.mark.parametrize(
    ("mask", "is_causal", "scale"), [*product(MASKS, [False, True], [None, 0.3])]
)
def test_options(sdpa, mask, is_causal, scale):
    options = {"attn_mask": MASKS[mask](), "is_causal": is_causal, "scale": scale}
    shapes = (Q, K, V)
    found = results_and_gradients(sdpa, shapes, **options)
    torch.testing.assert_close(found, results_and_gradients(by_math, shapes, **options))


@pytest.mark.parametrize("shapes", SHAPES)
def test_shapes(sdpa, shapes):
    found = results_and_gradients(sdpa, SHAPES[shapes])
    torch.testing.assert_close(found, results_and_gradients(by_math, SHAPES[shapes]))


@pytest.mark.parametrize("rank", [3, 5])
@pytest.mark.parametrize("mask", ["bool_rows", "float_inf"])
def test_masks_of_other_ranks(sdpa, rank, mask):
    options = {"attn_mask": MASKS[mask](), "is_causal": True}
    shapes = SHAPES[f"rank_{rank}"]
    found = results_and_gradients(sdpa, shapes, **options)
    torch.testing.assert_close(found, results_and_gradients(by_math, shapes, **options))


def test_mask_of_rank_5(sdpa):
    options = {"attn_mask": floats(3, 1, 1, 5, 7, seed=4)}
    shapes = SHAPES["rank_5"]
    found = results_and_gradients(sdpa, shapes, **options)
    torch.testing.assert_close(found, results_and_gradients(by_math, shapes, **options))


@pytest.mark.parametrize("batch", [1, 2])
def test_grouped_heads(sdpa, batch):
    shapes = (Q, (batch, 2, 7, 6), (batch, 2, 7, 3))
    found = results_and_gradients(sdpa, shapes, enable_gqa=True)
    torch.testing.assert_close(found, results_and_gradients(by_math, shapes, enable_gqa=True))


def test_fully_masked_rows_are_zero(sdpa):
    inputs = [floats(*x) for x in (Q, K, V)]
    for mask in (torch.zeros(5, 7, dtype=torch.bool), torch.full((5, 7), -torch.inf).double()):
        assert not sdpa(*inputs, attn_mask=mask).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(sdpa, dtype):
    inputs = [floats(*x, seed=i, dtype=dtype) for i, x in enumerate((Q, K, V))]
    found = sdpa(*inputs, is_causal=True)
    expected = by_math(*(x.double() for x in inputs), is_causal=True)
    assert found.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_masks_of_float32_beside_half(sdpa):
    inputs = [floats(*Q, seed=i, dtype=torch.bfloat16) for i in range(3)]
    mask = floats(5, 5, dtype=torch.float32)
    found, expected = (f(*inputs, attn_mask=mask) for f in (sdpa, torch_sdpa))
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_dropout(sdpa):
    q, k, v = (floats(2, 4, 64, 8, seed=i) for i in range(3))
    torch.manual_seed(0)
    first, second = (sdpa(q, k, v, dropout_p=0.5) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(sdpa(q, k, v, dropout_p=0.5), first)
    assert not torch.equal(first, second)
    assert not sdpa(q, k, v, dropout_p=1.0).any()
    weights = sdpa(q, k, torch.eye(64).double().expand(2, 4, 64, 64), dropout_p=0.25)
    assert 0.7 < (weights > 0).double().mean() < 0.8
    plain = at.attention_weights(q, k)
    torch.testing.assert_close(weights[weights > 0], (plain / 0.75)[weights > 0])


def count(monkeypatch):
    """The kernels of attnext that run from here on, in order."""
    calls = []
    for module, name in (
        (provider, "scaled_dot_product_attention"), (provider, "array_attention"),
        (provider, "attention_backward"),
    ):  # fmt: skip
        function = getattr(module, name)

        def counted(*arguments, function=function, name=name, **options):
            calls.append(name)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, counted)
    return calls


@pytest.fixture
def inputs():
    return [floats(*Q, seed=i).requires_grad_() for i in range(3)]


def test_nothing_is_active_after_import(inputs, run_python):
    code = (
        "import torch, attnext.torch; x = torch.ones(1, 1, 2, 2, requires_grad=True); "
        "f = torch.nn.functional.scaled_dot_product_attention; print(f(x, x, x).grad_fn.name())"
    )
    assert run_python(code).strip() == "ScaledDotProductFlashAttentionForCpuBackward0"


@pytest.mark.skipif(not provider.has_registry(), reason="this torch has no registry")
def test_torchs_own_registry(inputs, monkeypatch):
    from torch.nn import attention

    calls = count(monkeypatch)
    before = torch_sdpa(*inputs)
    assert not calls
    assert attention.current_flash_attention_impl() is None
    attention.activate_flash_attention_impl("attnext")
    try:
        assert attention.current_flash_attention_impl() == "attnext"
        torch.testing.assert_close(torch_sdpa(*inputs), before)
        assert calls == ["scaled_dot_product_attention"]
    finally:
        attention.restore_flash_attention_impl()
    assert torch.equal(torch_sdpa(*inputs), before)
    assert len(calls) == 1


def test_override_ends_and_may_be_repeated(inputs, monkeypatch):
    calls = count(monkeypatch)
    before = torch_sdpa(*inputs)
    for _ in range(2):
        override = at.override_sdpa()
        torch_sdpa(*inputs)
        override.remove()
        override.remove()
        assert torch.equal(torch_sdpa(*inputs), before)
    assert len(calls) == 2


def test_overrides_within_each_other(inputs, monkeypatch):
    calls = count(monkeypatch)
    outer, inner = at.override_sdpa(), at.override_sdpa()
    outer.remove()
    torch_sdpa(*inputs)
    inner.remove()
    torch_sdpa(*inputs)
    assert len(calls) == 1


def test_override_warns_of_nothing(run_python):
    run_python("import warnings; warnings.simplefilter('error')\n"
               "import attnext.torch; attnext.torch.override_sdpa()")  # fmt: skip


def test_without_gradients(inputs, monkeypatch):
    calls = count(monkeypatch)
    expected = by_math(*inputs)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            plain = [x.detach().clone() for x in inputs]
            torch.testing.assert_close(overridden(*plain), expected.detach())
    assert len(calls) == 2


def test_the_math_backend_stays_torchs(inputs, monkeypatch):
    calls = count(monkeypatch)
    with at.override_sdpa(), sdpa_kernel(SDPBackend.MATH):
        torch_sdpa(*inputs)
    assert not calls


@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"attn_mask": MASKS["bool"]()[..., :5]}, {"scale": 0.2}],
    ids=lambda options: "-".join(options) or "plain",
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_graphs(inputs, options, is_dynamic, monkeypatch):
    """Compiled without attnext, a graph runs on it as soon as it is there, and torch's after."""
    torch._dynamo.reset()
    compiled = torch.compile(torch_sdpa, fullgraph=True, dynamic=is_dynamic)
    before = compiled(*inputs, **options)
    before_grads = torch.autograd.grad(before.sin().sum(), inputs)
    calls = count(monkeypatch)
    with at.override_sdpa():
        out = compiled(*inputs, **options)
        grads = torch.autograd.grad(out.sin().sum(), inputs)
    assert calls == ["array_attention", "attention_backward"]
    torch.testing.assert_close((out, *grads), (before, *before_grads))
    assert torch.equal(compiled(*inputs, **options), before)
    assert len(calls) == 2
    torch._dynamo.reset()


def test_compiled_while_active(inputs, monkeypatch):
    torch._dynamo.reset()
    expected = results_and_gradients(torch_sdpa, (Q, Q, Q))
    calls = count(monkeypatch)
    with at.override_sdpa():
        compiled = torch.compile(torch_sdpa, fullgraph=True, backend="aot_eager")
        found = results_and_gradients(compiled, (Q, Q, Q))
    assert calls == ["array_attention", "attention_backward"]
    torch.testing.assert_close(found, expected)
    torch._dynamo.reset()


def test_fused_kernels_have_torchs_strides(inputs):
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    for q, k, v in (inputs, [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]):
        q, k, v = (x.detach() for x in (q, k, v))
        mask = floats(5, 5)
        expected = fused(q, k, v, 0.0, True, attn_mask=mask)
        arguments = (torch.ones_like(q), q, k, v, *expected, 0.0, True)
        expected += fused_backward(*arguments, attn_mask=mask)
        with at.override_sdpa():
            found = fused(q, k, v, 0.0, True, attn_mask=mask)
            found += fused_backward(*arguments, attn_mask=mask)
            with pytest.raises(NotImplementedError, match="dropout_p must be 0"):
                fused(q, k, v, 0.5)
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y)
            assert x.stride() == y.stride()


def test_vmap_and_func_stay_right(inputs):
    q, k, v = (x.detach() for x in inputs)
    gradient = torch.func.vmap(torch.func.grad(lambda *x: torch_sdpa(*x).sin().sum()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch loops over an operator it has no rule for
        expected = gradient(q, k, v)
        with at.override_sdpa():
            torch.testing.assert_close(gradient(q, k, v), expected)


def test_autocast(inputs):
    single = [x.detach().float() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        expected = torch_sdpa(*single)
        for found in (at.scaled_dot_product_attention(*single), overridden(*single)):
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
def test_training_step_of_torchs_multi_head_attention(is_padded, batch_first, monkeypatch):
    calls = count(monkeypatch)
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, batch_first=batch_first, dtype=torch.float64)
    x = floats(2, 5, 12).requires_grad_()
    padding = torch.arange(5) >= torch.tensor([[5], [2]]) if is_padded else None
    entries = x if batch_first else x.transpose(0, 1)

    def step():
        out, _ = layer(entries, entries, entries, key_padding_mask=padding, need_weights=False)
        return (out, *torch.autograd.grad(out.sin().sum(), [x, *layer.parameters()]))

    expected = step()
    with at.override_sdpa():
        found = step()
    assert calls == ["scaled_dot_product_attention"]
    torch.testing.assert_close(found, expected)


def test_training_of_a_torch_encoder(monkeypatch):
    calls = count(monkeypatch)

    def losses():
        torch.manual_seed(0)
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(12, 4, 24, dropout=0.0, batch_first=True), 2
        )
        optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
        x, found = torch.randn(4, 6, 12), []
        for _ in range(5):
            loss = encoder(x).square().mean() + encoder(x).sum(1).sin().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            found.append(loss.item())
        return found

    expected = losses()
    with at.override_sdpa():
        assert losses() == pytest.approx(expected, rel=1e-5)
    assert len(calls) == 20


def test_errors_stay_torchs(inputs):
    q, k, v = (x.detach() for x in inputs)
    wrong = (
        ((q, k.float(), v), {}), ((q, k[..., :3], v), {}),
        ((q, k, v), {"attn_mask": torch.zeros(5, 5, dtype=torch.int64)}),
    )  # fmt: skip
    for arguments, options in wrong:
        with pytest.raises(RuntimeError) as expected:
            torch_sdpa(*arguments, **options)
        with pytest.raises(RuntimeError) as found:
            overridden(*arguments, **options)
        assert str(found.value) == str(expected.value)


def test_empty_head_dim_stays_torchs(inputs):
    q, k, v = (x.detach() for x in inputs)
    q, k = q[..., :0], k[..., :0]
    assert torch.equal(overridden(q, k, v), torch_sdpa(q, k, v))


def test_register_without_a_registry(monkeypatch):
    monkeypatch.delattr(torch.nn.attention, "register_flash_attention_impl", raising=False)
    with pytest.raises(RuntimeError, match=r"^register_sdpa: torch .* override_sdpa\(\)"):
        at.register_sdpa()
