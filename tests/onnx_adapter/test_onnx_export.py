"""Does an exported module say what attnext computed? Run by onnxruntime and by ONNX's reference."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx.reference import ReferenceEvaluator  # noqa: E402

import attnext.onnx  # noqa: E402
import attnext.torch  # noqa: E402

# What the exporter itself warns of while it runs.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


class Call(torch.nn.Module):
    """One call with fixed options."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v):
        return attnext.torch.attention(q, k, v, **self.options)


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def export(module, inputs, *, opset=23, **more):
    program = torch.onnx.export(
        module.eval(), tuple(inputs), dynamo=True, opset_version=opset, verbose=False,
        custom_translation_table=attnext.onnx.translations(), **more,
    )  # fmt: skip
    return program.model_proto


def run_onnxruntime(model, inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(
        None, dict(zip([i.name for i in session.get_inputs()], map(np.asarray, inputs)))
    )[0]


def assert_exported(module, inputs, model=None, bound=2e-6):
    """Both runtimes agree with the module itself; returns the operators of the graph."""
    model = export(module, inputs) if model is None else model
    expected = module(*inputs).detach().numpy()
    named = {i.name: np.asarray(x) for i, x in zip(model.graph.input, inputs)}
    ours = ReferenceEvaluator(model, new_ops=[attnext.onnx.Attention]).run(None, named)[0]
    for found in (run_onnxruntime(model, inputs), ours):
        np.testing.assert_allclose(found, expected, rtol=bound, atol=bound)
    return [node.op_type for node in model.graph.node]


def q_k_v(queries=5, keys=7, dtype=torch.float32):
    return [draw(2, 4, queries, 8, dtype=dtype), *(draw(2, 2, keys, 8, dtype=dtype),) * 2]


OPTIONS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 0.5},
    "causal": {"causal": True},
    "top_left": {"causal": "top_left"},
    "window": {"window": (2, 1)},
    "causal window": {"causal": True, "window": (2, 0)},
    "top_left window": {"causal": "top_left", "window": (2, None)},
    "offset": {"causal": True, "q_offset": torch.tensor([1, 3])},
    "lengths": {"causal": True, "q_lengths": [2, 5], "kv_lengths": [7, 3]},
    "mask": {"mask": draw(2, 1, 5, 7) > 0, "softcap": 1.0},
    "mask of queries": {"mask": torch.tensor([True, False, True, True, False])[:, None]},
    "bias": {"bias": draw(4, 1, 7)},
    "bias and mask": {"bias": draw(4, 1, 7), "mask": draw(2, 1, 5, 7) > 0, "causal": True},
    "alibi": {"alibi_slopes": attnext.alibi_slopes(4)},
    "alibi of the batch": {"alibi_slopes": draw(2, 4), "bias": draw(5, 7), "causal": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_one_node(options):
    assert assert_exported(Call(**options), q_k_v()) == ["Attention"]


def test_leading_queries_without_keys():
    assert_exported(Call(causal=True), q_k_v(queries=9))


def test_is_causal_says_top_left():
    for options, queries, is_attribute in (
        ({"causal": "top_left"}, 5, True),
        ({"causal": True}, 7, True),
        ({"causal": True}, 5, False),
        ({"causal": True, "kv_lengths": [7, 7]}, 7, False),
    ):
        (node,) = export(Call(**options), q_k_v(queries)).graph.node
        values = [a.i for a in node.attribute if a.name == "is_causal"]
        assert any(values) == is_attribute, options


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_ranks_and_layouts(rank, layout):
    inputs = [x[(0,) * (4 - rank)] for x in q_k_v()]
    if layout == "bshd" and rank > 2:
        inputs = [x.transpose(-3, -2).contiguous() for x in inputs]
    kinds = assert_exported(Call(causal=True, layout=layout), inputs)
    assert kinds.count("Attention") == 1


@pytest.mark.filterwarnings("ignore:.*The axis name")
@pytest.mark.parametrize("options", [{"causal": True, "window": (3, 0)}, {"alibi_slopes": draw(4)}])
def test_sizes_known_only_when_run(options):
    batch, queries, keys = (torch.export.Dim(name) for name in ("batch", "queries", "keys"))
    sizes = ({0: batch, 2: queries}, {0: batch, 2: keys}, {0: batch, 2: keys})
    module = Call(**options)
    model = export(module, q_k_v(), dynamic_shapes=sizes)
    for queries, keys in ((5, 7), (1, 9), (6, 2)):
        assert_exported(module, q_k_v(queries, keys), model)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2e-3), (torch.float64, 1e-6)])
def test_types(dtype, bound):
    module = Call(causal=True, bias=draw(7))
    assert_exported(module, q_k_v(dtype=dtype), bound=bound)


@pytest.mark.parametrize("opset", [23, 24, 25])
def test_opsets(opset):
    model = export(Call(causal=True), q_k_v(), opset=opset)
    assert model.opset_import[0].version == opset
    assert_exported(Call(causal=True), q_k_v(), model)


def test_a_module():
    module = attnext.torch.MultiHeadAttention(32, 4, causal=True)
    assert "Attention" in assert_exported(module, [draw(2, 6, 32)], bound=1e-5)


REFUSED = {
    "score": {"score": "neg_sq_l2"},
    "scale": {"scale": torch.ones(4)},
    "sinks": {"sinks": torch.zeros(4)},
    "dropout": {"dropout": 0.1, "seed": 1},
    "return_lse": {"return_lse": True},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_lacks_is_named(name):
    message = rf"NotImplementedError'>: attention: {name} cannot be exported"
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=message):
        export(Call(**REFUSED[name]), q_k_v())


def test_packed_sequences_are_named():
    starts = torch.tensor([0, 2, 5])
    module = Call(layout="thd", cu_seqlens_q=starts, cu_seqlens_k=starts)
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match="attention: layout cannot be"):
        export(module, [draw(5, 4, 8)] * 3)


def test_an_opset_without_attention_is_named():
    with pytest.raises(
        torch.onnx.errors.OnnxExporterError, match="opset_version must be at least 23"
    ):
        export(Call(), q_k_v(), opset=20)


def test_missing_onnxscript_is_named(run_python):
    run_python("""
import sys
import attnext.onnx
sys.modules["onnxscript"] = None
try:
    attnext.onnx.translations()
except ImportError as error:
    assert str(error) == (
        'attnext.onnx.translations needs onnxscript: pip install "attnext[onnx,torch]"'
    ), error
else:
    raise AssertionError("imported")
""")


class States(torch.nn.Module):
    """A model of transformers, from arrays to an array."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens, mask):
        return self.model(input_ids=tokens, attention_mask=mask).last_hidden_state


@pytest.mark.filterwarnings("ignore:.*The axis name")
def test_an_encoder_of_transformers():
    transformers = pytest.importorskip("transformers")
    from attnext import hf

    hf.register()
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, attn_implementation="attnext",
    )  # fmt: skip
    module = States(transformers.BertModel(config)).eval()
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=99)}

    def padded(batch, length):
        mask = (torch.arange(length) < length - torch.arange(batch)[:, None]).long()
        return [torch.randint(1, 60, (batch, length)) * mask, mask]

    model = export(module, padded(2, 5), dynamic_shapes=(sizes, sizes))
    for inputs in (padded(2, 5), padded(4, 9)):  # onnx.reference fails at the embeddings of BERT
        is_real = inputs[1].bool().numpy()
        found, expected = run_onnxruntime(model, inputs), module(*inputs).detach().numpy()
        np.testing.assert_allclose(found[is_real], expected[is_real], rtol=1e-5, atol=1e-5)
    assert [node.op_type for node in model.graph.node].count("Attention") == 2
