"""Is each module the formula of its paper, or torch's own module where there is one?"""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import attnext.torch as at  # noqa: E402

DOUBLE = {"dtype": torch.float64}


def floats(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = floats(2, 7, 12), floats(2, 5, 8, seed=1)


def copied(ours, theirs):
    """Torch's multi-head attention with the parameters of ours."""
    with torch.no_grad():
        if theirs.in_proj_weight is not None:
            parts = (ours.q_proj, ours.k_proj, ours.v_proj)
            theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        else:
            theirs.q_proj_weight.copy_(ours.q_proj.weight)
            theirs.k_proj_weight.copy_(ours.k_proj.weight)
            theirs.v_proj_weight.copy_(ours.v_proj.weight)
        theirs.in_proj_bias.copy_(torch.cat([ours.q_proj.bias, ours.k_proj.bias, ours.v_proj.bias]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    return theirs


def randomised(module):
    for i, parameter in enumerate(module.parameters()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(i))
    return module


@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_is_torchs(batch_first):
    options = {"batch_first": batch_first, **DOUBLE}
    ours = randomised(at.MultiHeadAttention(12, 3, **options))
    theirs = copied(ours, nn.MultiheadAttention(12, 3, **options))
    expected, weights = theirs(X, X, X, average_attn_weights=False)
    out, found = ours(X, return_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(found, weights.detach())


def test_multi_head_cross_is_torchs():
    ours = randomised(at.MultiHeadAttention(12, 3, key_dim=8, value_dim=8, **DOUBLE))
    theirs = copied(ours, nn.MultiheadAttention(12, 3, kdim=8, vdim=8, batch_first=True, **DOUBLE))
    lengths = torch.tensor([5, 2])
    padding = torch.arange(5) >= lengths[:, None]  # torch's own: True is ignored
    expected, _ = theirs(X, Y, Y, key_padding_mask=padding)
    torch.testing.assert_close(ours(X, Y, kv_lengths=lengths), expected)
    torch.testing.assert_close(ours(X, Y, mask=~padding[:, None, None]), expected)
    torch.testing.assert_close(ours(X, Y, Y, kv_lengths=lengths), expected)


def heads(layer, x, num_heads):
    return layer(x).unflatten(-1, (num_heads, -1)).transpose(1, 2)


def test_positions():
    for positions in ("rotary", "alibi", "sinusoidal"):
        module = randomised(at.MultiHeadAttention(12, 3, positions=positions, **DOUBLE))
        q_input = k_input = X
        if positions == "sinusoidal":
            q_input = k_input = X + at.sinusoidal_positions(7, 12)
        q, k = heads(module.q_proj, q_input, 3), heads(module.k_proj, k_input, 3)
        v = heads(module.v_proj, X, 3)
        if positions == "rotary":
            q, k = at.rotary(q), at.rotary(k)
        slopes = at.alibi_slopes(3) if positions == "alibi" else None
        out = at.attention(q, k, v, alibi_slopes=slopes)
        expected = module.out_proj(out.transpose(1, 2).flatten(-2))
        torch.testing.assert_close(module(X), expected)


def test_cosine_norms_and_sinks():
    module = randomised(
        at.MultiHeadAttention(12, 3, score="cosine", qk_norm=True, sinks=True, **DOUBLE)
    )
    q, k, v = (heads(x, X, 3) for x in (module.q_proj, module.k_proj, module.v_proj))
    q, k = module.q_norm(q), module.k_norm(k)
    s = nn.functional.cosine_similarity(q[..., :, None, :], k[..., None, :, :], dim=-1)
    s = module.scale[:, None, None] * s
    s = torch.cat([s, module.sinks[:, None, None].expand(2, 3, 7, 1)], -1)
    out = torch.softmax(s, -1)[..., :-1] @ v
    torch.testing.assert_close(module(X), module.out_proj(out.transpose(1, 2).flatten(-2)))


@pytest.mark.parametrize("positions", [None, "rotary", "alibi", "sinusoidal"])
def test_decoding_step_by_step(positions):
    module = at.MultiHeadAttention(12, 2, positions=positions, causal=True, **DOUBLE)
    whole = module(X)
    for step in range(1, 8):
        seen = X[:, :step]
        torch.testing.assert_close(module(seen[:, -1:], seen), whole[:, step - 1 : step])
    torch.testing.assert_close(module(X[:, 3:5], X[:, :5], q_offset=3), whole[:, 3:5])


@pytest.mark.parametrize("positions", [None, "rotary", "alibi", "sinusoidal"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_makes_no_difference(positions, causal):
    module = at.MultiHeadAttention(12, 2, positions=positions, causal=causal, **DOUBLE)
    lengths = torch.tensor([7, 4])
    padded = X.clone()
    padded[1, 4:] = 1e3
    found = module(padded, kv_lengths=lengths)
    torch.testing.assert_close(found[1, :4], module(X[1:, :4])[0])
    torch.testing.assert_close(found[0], module(X[:1])[0])
    assert torch.equal(found[1, 4:], module.out_proj(torch.zeros(3, 12).double()))
    cross = module(X[:, :3], padded, kv_lengths=lengths)
    torch.testing.assert_close(cross[1], module(X[1:, :3], X[1:, :4])[0])


def test_windows_and_masks():
    module = at.MultiHeadAttention(12, 2, window=(1, 0), **DOUBLE)
    near = torch.arange(7) - torch.arange(7)[:, None]
    mask = (near >= -1) & (near <= 0)
    free = at.MultiHeadAttention(12, 2, **DOUBLE)
    free.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(X), free(X, mask=mask))
    hidden = torch.zeros(7, 7).double().masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(module(X), free(X, bias=hidden))
    assert module(X, rows=[3])[1][0, 0, 0].nonzero().flatten().tolist() == [2, 3]


LENGTHS = torch.tensor([5, 3])
HIDDEN = torch.arange(5) >= LENGTHS[:, None, None]


def attended(s, value):
    p = torch.softmax(s.masked_fill(HIDDEN, -torch.inf), -1)
    return p @ value, p


def check_scored(module, query, s):
    out, weights = module(query, Y, kv_lengths=LENGTHS, return_weights=True)
    expected, p = attended(s, Y)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, p.detach())
    values = floats(2, 5, 3, seed=5)
    mask = ~HIDDEN
    torch.testing.assert_close(module(query, Y, values, mask=mask), attended(s, values)[0])


def test_additive():
    module = randomised(at.AdditiveAttention(12, 8, 6, **DOUBLE))
    total = module.q_proj(X)[:, :, None] + module.k_proj(Y)[:, None]
    check_scored(module, X, torch.tanh(total) @ module.weight)


def test_general():
    module = randomised(at.GeneralAttention(12, 8, scale=0.5, **DOUBLE))
    check_scored(module, X, 0.5 * torch.einsum("bqi,ij,bkj->bqk", X, module.weight, Y))


def test_cosine():
    query = floats(2, 4, 8, seed=3)
    module = at.CosineAttention(4.0, **DOUBLE)
    similarity = nn.functional.cosine_similarity(query[:, :, None], Y[:, None], dim=-1)
    check_scored(module, query, 4.0 * similarity)


@pytest.mark.parametrize("squared", [False, True])
def test_euclidean(squared):
    query = floats(2, 4, 8, seed=3)
    module = at.EuclideanAttention(0.7, squared=squared, **DOUBLE)
    distance = torch.cdist(query, Y)
    check_scored(module, query, -0.7 * (distance**2 if squared else distance))


def test_scored_attention_is_causal_and_drops():
    module = at.CosineAttention(causal=True, dropout=0.5, **DOUBLE)
    weights = module(X, X, return_weights=True)[1]
    assert torch.equal(weights, weights.tril())
    assert not torch.equal(module(X, X), module(X, X))
    assert torch.equal(module.eval()(X, X), module(X, X))


def test_bidirectional():
    module = randomised(at.BidirectionalAttention(12, 8, 3, **DOUBLE))
    q, v_q = heads(module.x_proj, X, 3), heads(module.x_value_proj, X, 3)
    k, v_k = heads(module.y_proj, Y, 3), heads(module.y_value_proj, Y, 3)
    s = (q @ k.mT) / 2
    s = s.masked_fill(HIDDEN[:, None], -torch.inf)
    p_x = torch.softmax(s, -1)
    p_y = torch.nan_to_num(torch.softmax(s, -2)).mT
    results = module(X, Y, y_lengths=LENGTHS, return_weights=True)
    out_x = module.x_out_proj((p_x @ v_k).transpose(1, 2).flatten(-2))
    out_y = module.y_out_proj((p_y @ v_q).transpose(1, 2).flatten(-2))
    for found, expected in zip(results, (out_x, out_y, p_x, p_y), strict=True):
        torch.testing.assert_close(found.detach(), expected.detach())
    mask = (~HIDDEN[:, None]).expand(2, 3, 7, 5)
    again = module(X, Y, mask=mask, return_weights=True)
    for found, expected in zip(again, results, strict=True):
        torch.testing.assert_close(found, expected)


def sequential_attention(module, x, dim):
    """The founding article's code, word by word; its bias of the scores changes nothing."""
    h = torch.tanh(module.proj(x))
    a = torch.exp(h @ module.weight)[..., None]
    a = a / torch.sum(a, dim=dim, keepdim=True)
    return module.out_proj(torch.sum(a * h, dim=dim)), a


def test_pooling_over_words():
    module = randomised(at.AttentionPooling(12, 6, 5, **DOUBLE))
    pooled, weights = module(X, return_weights=True)
    expected, a = sequential_attention(module, X, 1)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(weights, a[..., 0].detach())
    short = module(X, lengths=torch.tensor([7, 3]))
    torch.testing.assert_close(short[1:], module(X[1:, :3]))


def test_pooling_over_regions():
    module = randomised(at.AttentionPooling(12, 6, 5, **DOUBLE))
    image = floats(2, 12, 3, 4)
    pooled, weights = module(image, return_weights=True)
    expected, a = sequential_attention(module, image.flatten(2).mT, 1)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(weights, a[..., 0].unflatten(-1, (3, 4)).detach())


def test_pooling_of_inputs():
    module = randomised(at.AttentionPooling(12, 6, values="input", **DOUBLE))
    _, a = sequential_attention(module, X, 1)
    torch.testing.assert_close(module(X), (a * X).sum(1))


def test_sinusoids():
    module = at.SinusoidalPositions(12, max_seqlen=9)
    table = at.sinusoidal_positions(9, 12)
    torch.testing.assert_close(module(X), X + table[:7])
    torch.testing.assert_close(module(X, offset=2), X + table[2:])
    moved = module(X, offset=torch.tensor([0, 2]))
    torch.testing.assert_close(moved, X + torch.stack([table[:7], table[2:]]))


def test_block():
    block = randomised(at.SelfAttentionBlock(12, 3, hidden_dim=20, **DOUBLE))
    x = X + block.attention(block.attention_norm(X))
    expected = x + block.out(nn.functional.gelu(block.hidden(block.hidden_norm(x))))
    torch.testing.assert_close(block(X), expected)
    lengths = torch.tensor([7, 2])
    padded = block(X, kv_lengths=lengths)
    torch.testing.assert_close(padded[1, :2], block(X[1:, :2])[0])


def test_lengths_and_offsets_may_be_lists():
    module = at.MultiHeadAttention(12, 2, positions="rotary", causal=True, **DOUBLE)
    lengths = torch.tensor([7, 4])
    assert torch.equal(module(X, kv_lengths=[7, 4]), module(X, kv_lengths=lengths))
    offsets = torch.tensor([2, 3])
    found = module(X[:, :4], X, q_offset=[2, 3])
    assert torch.equal(found, module(X[:, :4], X, q_offset=offsets))
    torch.testing.assert_close(found[:1], module(X[:1, :4], X[:1], q_offset=2))
