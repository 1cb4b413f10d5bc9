"""How does attention_forward understand what transformers hands it? Conventions and refusals."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import attnext  # noqa: E402
import attnext.hf  # noqa: E402


class Layer(torch.nn.Module):
    """All that an implementation reads of a layer."""

    is_causal = False


class CausalLayer(Layer):
    """A decoder's."""

    is_causal = True


def draw(queries=3, keys=5, heads=2, groups=1, batch=2):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, heads, queries, 4), (batch, groups, keys, 4), (batch, groups, keys, 6))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def forward(*arrays, layer=Layer, attention_mask=None, **options):
    return attnext.hf.attention_forward(layer(), *arrays, attention_mask, **options)


def visible(*arrays, **options):
    weights = forward(*arrays, output_attentions=True, **options)[1]
    return (weights[0, 0] > 0).int().tolist()


def test_out_is_batch_rows_heads_width():
    q, k, v = draw()
    out, weights = forward(q, k, v)
    assert out.shape == (2, 3, 2, 6)
    assert out.is_contiguous()
    assert weights is None
    expected = attnext.attention(*(x.numpy() for x in (q, k, v))).swapaxes(1, 2)
    np.testing.assert_array_equal(out, expected)


def test_causal_corner_without_a_mask_is_top_left():
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert visible(*draw(), layer=CausalLayer) == expected
    assert visible(*draw(), is_causal=True) == expected
    assert visible(*draw(), layer=CausalLayer, is_causal=False) == [[1] * 5] * 3


def test_a_single_query_sees_all_its_past():
    assert visible(*draw(queries=1), layer=CausalLayer) == [[1] * 5]


def test_a_mask_states_every_rule():
    mask = torch.tensor([[1, 0, 0, 0, 1]] * 3).bool()[None, None]
    found = visible(*draw(), layer=CausalLayer, attention_mask=mask, sliding_window=1)
    assert found == [[1, 0, 0, 0, 1]] * 3


def test_a_window_counts_the_query_itself():
    found = visible(*draw(keys=3), layer=CausalLayer, sliding_window=2)
    assert found == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_a_float_mask_is_added():
    mask = torch.zeros(1, 1, 3, 5)
    mask[..., 2] = -math.inf
    mask[..., 0] = 3.0
    q, k, v = draw()
    expected = attnext.torch.attention(q, k, v, bias=mask).transpose(1, 2)
    assert torch.equal(forward(q, k, v, attention_mask=mask)[0], expected)


def test_masks_and_position_biases_join():
    q, k, v = draw()
    bias = torch.randn(1, 2, 3, 5)
    shown = torch.ones(1, 1, 3, 5).bool()
    shown[..., 1] = False
    hidden = torch.zeros(1, 1, 3, 5).masked_fill(~shown, -math.inf)
    expected = attnext.torch.attention(q, k, v, bias=bias, mask=shown).transpose(1, 2)
    for mask in (shown, hidden):
        out, _ = forward(q, k, v, attention_mask=mask, position_bias=bias)
        torch.testing.assert_close(out, expected)


def test_a_row_without_keys_is_zero():
    mask = torch.ones(2, 1, 3, 5).bool()
    mask[1, 0, 2] = False
    out, _ = forward(*draw(), attention_mask=mask)
    assert (out[1, 2] == 0).all()
    assert (out[1, 1] != 0).all()


def test_default_scale():
    q, k, v = draw()
    assert torch.equal(forward(q, k, v)[0], forward(q, k, v, scaling=0.5)[0])
    assert not torch.equal(forward(q, k, v)[0], forward(q, k, v, scaling=1.0)[0])


def test_sinks_join_the_denominator():
    q, k, v = draw()
    sinks = torch.tensor([0.5, -1.0], requires_grad=True)
    out, weights = forward(q, k, v, s_aux=sinks, softcap=3.0, output_attentions=True)
    expected = attnext.torch.attention(q, k, v, sinks=sinks, softcap=3.0).transpose(1, 2)
    assert torch.equal(out, expected)
    assert (weights.sum(-1) < 0.999).all()
    out.sum().backward()
    assert (sinks.grad != 0).all()


def test_dropout_is_attnexts_and_its_seed_torchs():
    q, k, v = (x.repeat_interleave(2 // x.shape[1], 1) for x in draw())
    torch.manual_seed(3)
    out, weights = forward(q, k, v, dropout=0.5, output_attentions=True)
    torch.manual_seed(3)
    seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
    kept = torch.from_numpy(attnext.dropout_mask(weights.shape, 0.5, seed))
    expected = (weights * kept / 0.5) @ v
    torch.testing.assert_close(out, expected.transpose(1, 2))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 3))


def test_queries_of_batch_one_serve_every_member():
    q, k, v = draw()
    expected = forward(q[:1].expand(2, -1, -1, -1), k, v)[0]
    assert torch.equal(forward(q[:1], k, v)[0], expected)


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_packed_sequences(kind):
    q, k, v = draw(queries=5, batch=1)
    starts = torch.tensor([0, 2, 5])
    mask = {"none": None, "bool": torch.ones(5, 5).tril().bool()}.get(kind)
    if kind == "float":
        mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    mask = None if mask is None else mask[None, None]
    out, _ = forward(q, k, v, layer=CausalLayer, attention_mask=mask, cu_seq_lens_q=starts)
    parts = [
        forward(*(x[:, :, part] for x in (q, k, v)), layer=CausalLayer)[0]
        for part in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(out, torch.cat(parts, 1))


def test_packed_queries_after_a_past_end_with_it():
    q, k, v = draw(queries=2, batch=1)
    starts = {"cu_seq_lens_q": torch.tensor([0, 1, 2]), "cu_seq_lens_k": torch.tensor([0, 2, 5])}
    out, _ = forward(q, k, v, layer=CausalLayer, sliding_window=2, **starts)
    last = (slice(0, 2), slice(3, 5))  # the keys in the window of the last position
    parts = [forward(q[:, :, i : i + 1], k[:, :, s], v[:, :, s])[0] for i, s in enumerate(last)]
    torch.testing.assert_close(out, torch.cat(parts, 1))


@pytest.mark.parametrize("name", ["cache", "block_indices", "indices", "head_mask", "alibi"])
def test_what_might_change_the_result_is_refused_by_name(name):
    with pytest.raises(NotImplementedError, match=f"^attention_forward: {name} is not known"):
        forward(*draw(), **{name: torch.zeros(1)})
    assert forward(*draw(), **{name: None})[0].shape == (2, 3, 2, 6)


def test_what_changes_nothing_is_accepted():
    q, k, v = draw()
    harmless = dict.fromkeys(attnext.hf.HARMLESS, 1)
    assert torch.equal(forward(q, k, v, **harmless)[0], forward(q, k, v)[0])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"attention_mask": torch.ones(2, 5).bool()}, ValueError, r"attention_mask must be \(B, H"),
        ({"cu_seq_lens_q": torch.tensor([0, 3])}, ValueError, "query must have a batch of 1"),
        ({"scaling": "x"}, TypeError, "scale"),
    ],
)
def test_refusals(options, kind, message):
    with pytest.raises(kind, match=message):
        forward(*draw(), **options)


def test_packed_refusals():
    starts = torch.tensor([0, 2, 3])
    for more in ({"output_attentions": True}, {"position_bias": torch.zeros(1, 2, 3, 3)}):
        name = next(iter(more))
        with pytest.raises(NotImplementedError, match=f"{name} is not there for packed"):
            forward(*draw(keys=3, batch=1), cu_seq_lens_q=starts, **more)


def test_register_takes_free_names_only():
    attnext.hf.register("attnext_again")
    attnext.hf.register("attnext_again")
    for taken in ("sdpa", "eager", "flash_attention_2"):
        with pytest.raises(
            ValueError, match=f"register: name must be free, found .* has '{taken}'"
        ):
            attnext.hf.register(taken)
    with pytest.raises(TypeError, match="register: name must be a string, found int"):
        attnext.hf.register(3)


def test_import_attnext_leaves_transformers_alone(run_python):
    run_python("import sys, attnext; assert not {'transformers', 'torch'} & set(sys.modules)")


@pytest.mark.parametrize(
    ("name", "called"), [("transformers", "transformers"), ("torch", "PyTorch")]
)
def test_what_is_missing_is_named(run_python, name, called):
    run_python(f"""
import sys
sys.modules["{name}"] = None
try:
    import attnext.hf
except ImportError as error:
    assert str(error) == 'attnext.hf needs {called}: pip install "attnext[hf]"', error
else:
    raise AssertionError("imported")
""")
