"""Do the modules learn, compile, show their weights on request, and keep their state?"""

import copy
import inspect

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import attnext.torch as at  # noqa: E402

DOUBLE = {"dtype": torch.float64}


def floats(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = floats(2, 7, 12), floats(2, 5, 8, seed=1)

# Every module with what it is called with.
MODULES = {
    "multi_head": lambda: (at.MultiHeadAttention(12, 4, **DOUBLE), (X,)),
    "grouped": lambda: (at.MultiHeadAttention(12, 4, num_kv_heads=2, head_dim=6, **DOUBLE), (X,)),
    "cross": lambda: (at.MultiHeadAttention(12, 2, key_dim=8, value_dim=8, **DOUBLE), (X, Y)),
    "rotary": lambda: (
        at.MultiHeadAttention(12, 2, positions="rotary", causal=True, qk_norm=True, **DOUBLE),
        (X,),
    ),
    "alibi": lambda: (
        at.MultiHeadAttention(12, 3, positions="alibi", sinks=True, softcap=3.0, **DOUBLE),
        (X,),
    ),
    "sinusoidal": lambda: (
        at.MultiHeadAttention(12, 3, positions="sinusoidal", score="cosine", **DOUBLE),
        (X,),
    ),
    "additive": lambda: (at.AdditiveAttention(12, 8, 6, **DOUBLE), (X, Y)),
    "general": lambda: (at.GeneralAttention(12, 8, **DOUBLE), (X, Y)),
    "cosine": lambda: (at.CosineAttention(**DOUBLE), (X, X)),
    "euclidean": lambda: (at.EuclideanAttention(causal=True, **DOUBLE), (X, X.sin())),
    "euclidean_squared": lambda: (at.EuclideanAttention(squared=True, **DOUBLE), (X, X)),
    "bidirectional": lambda: (at.BidirectionalAttention(12, 8, 3, **DOUBLE), (X, Y)),
    "pooling": lambda: (at.AttentionPooling(12, 6, 5, **DOUBLE), (X,)),
    "pooling_inputs": lambda: (at.AttentionPooling(12, values="input", **DOUBLE), (X,)),
    "sinusoids": lambda: (at.SinusoidalPositions(12), (X,)),
    "block": lambda: (at.SelfAttentionBlock(12, 4, causal=True, **DOUBLE), (X,)),
}
every_module = pytest.mark.parametrize("name", MODULES)


def made(name):
    torch.manual_seed(0)
    return MODULES[name]()


def outputs(results):
    return results if isinstance(results, tuple) else (results,)


def loss(module, inputs):
    return sum(x.sin().sum() for x in outputs(module(*inputs)))


def test_every_module_is_here():
    exported = {x for x in vars(at).values() if inspect.isclass(x) and issubclass(x, nn.Module)}
    assert {type(made(name)[0]) for name in MODULES} == exported


@every_module
def test_every_parameter_learns(name):
    module, inputs = made(name)
    inputs = [x.clone().requires_grad_() for x in inputs]
    loss(module, inputs).backward()
    for what, leaf in (*module.named_parameters(), *enumerate(inputs)):
        assert leaf.grad.isfinite().all()
        # A bias of the keys may move all scores of a row alike, and so nothing.
        assert leaf.grad.any() or str(what).endswith("k_proj.bias"), what


@pytest.mark.parametrize("name", [name for name in MODULES if name != "sinusoids"])
def test_gradients_are_right(name):
    module, inputs = made(name)
    values = [p.detach().clone().requires_grad_() for p in module.parameters()]

    def call(*values):
        parameters = dict(zip((x for x, _ in module.named_parameters()), values))
        return torch.func.functional_call(module, parameters, inputs)

    assert torch.autograd.gradcheck(call, values, fast_mode=True)


@every_module
def test_state_dict_round_trip(name):
    module, inputs = made(name)
    expected = outputs(module(*inputs))
    state = copy.deepcopy(module.state_dict())
    assert set(state) == {x for x, _ in module.named_parameters()}
    torch.manual_seed(1)
    other, _ = MODULES[name]()
    other.load_state_dict(state)
    assert all(map(torch.equal, outputs(other(*inputs)), expected))
    assert all(map(torch.equal, outputs(copy.deepcopy(module)(*inputs)), expected))


@every_module
def test_compiles_without_graph_breaks(name):
    module, inputs = made(name)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    parameters = list(module.parameters())
    torch.testing.assert_close(compiled(*inputs), module(*inputs))
    if parameters:
        grads = [torch.autograd.grad(loss(m, inputs), parameters) for m in (module, compiled)]
        torch.testing.assert_close(*grads)
    torch._dynamo.reset()


@every_module
def test_other_dtypes_and_shows_itself(name):
    module, inputs = made(name)
    module = module.to(torch.bfloat16)
    results = outputs(module(*(x.to(torch.bfloat16) for x in inputs)))
    assert {x.dtype for x in results} == {torch.bfloat16}
    assert type(module).__name__ in repr(module)


WITH_WEIGHTS = [name for name in MODULES if name != "sinusoids"]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_weights_only_on_request(name, monkeypatch):
    module, inputs = made(name)
    asked = []

    def counted(*arguments, **options):
        asked.append(arguments)
        return at.attention_weights(*arguments, **options)

    monkeypatch.setattr("attnext.torch.nn.parts.attention_weights", counted)
    monkeypatch.setattr("attnext.torch.pooling.attention_weights", counted)
    usual = outputs(module(*inputs))
    assert not asked
    *results, weights = module(*inputs, return_weights=True)
    assert asked
    assert torch.equal(results[0], usual[0])
    assert not weights.requires_grad
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), atol=0.7, rtol=0)


@pytest.mark.parametrize("name", ["multi_head", "rotary", "additive", "cosine", "block"])
def test_weights_of_chosen_rows(name):
    module, inputs = made(name)
    everything = module(*inputs, return_weights=True)[1]
    assert torch.equal(module(*inputs, rows=[-1, 0])[1], everything[..., [-1, 0], :])


def test_dropout_only_while_training():
    module = at.MultiHeadAttention(12, 2, dropout=0.5, **DOUBLE)
    torch.manual_seed(0)
    first, second = module(X), module(X)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(module(X), first)
    assert torch.equal(module.eval()(X), module(X))


def test_dropout_of_the_block_and_the_pair():
    block = at.SelfAttentionBlock(12, 2, dropout=0.5, **DOUBLE)
    pair = at.BidirectionalAttention(12, 8, dropout=0.5, **DOUBLE)
    for module, inputs in ((block, (X,)), (pair, (X, Y))):
        assert not torch.equal(*(outputs(module(*inputs))[0] for _ in range(2)))
        module.eval()
        assert torch.equal(*(outputs(module(*inputs))[0] for _ in range(2)))


def test_made_on_another_device():
    block = at.SelfAttentionBlock(12, 2, positions="sinusoidal", device="meta")
    alibi = at.MultiHeadAttention(12, 2, positions="alibi", sinks=True, device="meta")
    for module in (block, alibi):
        tensors = [*module.parameters(), *module.buffers()]
        assert all(x.is_meta for x in tensors)
        assert module(X.to("meta", torch.float32)).shape == X.shape


def test_an_ensemble_by_vmap():
    modules = [
        at.SelfAttentionBlock(12, 2, causal=True, positions="rotary", **DOUBLE) for _ in range(3)
    ]
    state = torch.func.stack_module_state(modules)

    def call(parameters, buffers):
        return torch.func.functional_call(modules[0], (parameters, buffers), (X,)).sin().sum()

    losses = torch.func.vmap(call)(*state)
    torch.testing.assert_close(losses, torch.stack([module(X).sin().sum() for module in modules]))
    grads = torch.func.vmap(torch.func.grad(call))(*state)
    for i, module in enumerate(modules):
        expected = torch.autograd.grad(module(X).sin().sum(), list(module.parameters()))
        for name, grad in zip((x for x, _ in module.named_parameters()), expected):
            torch.testing.assert_close(grads[name][i], grad)


@pytest.fixture
def _one_thread_of_torch():
    """For tensors so small, more would only wait for each other."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.mark.usefixtures("_one_thread_of_torch")
def test_a_block_learns_to_copy():
    """To say again what stood one place before, from few steps."""
    torch.manual_seed(0)
    embed, head = nn.Embedding(4, 16), nn.Linear(16, 4)
    block = at.SelfAttentionBlock(16, 1, causal=True, positions="rotary")
    parameters = [*embed.parameters(), *block.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    losses = []
    for _ in range(60):
        tokens = torch.randint(4, (16, 8))
        logits = head(block(embed(tokens)))[:, 1:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, :-1].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.1
