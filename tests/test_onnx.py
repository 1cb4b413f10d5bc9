"""Does attnext agree with ONNX? Its Attention node tests, opset 23 to 25, in our options.

ONNX aligns causal masks and windows at the keys before this call: `q_offset` is the length of the
past, with `nonpad_kv_seqlen` its excess over the queries, and 0 without either.
"""

import numpy as np
import pytest

import attnext

onnx = pytest.importorskip("onnx")

INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
OUTPUTS = ("Y", "present_key", "present_value", "qk_matmul_output")
RAW, CAPPED, BIASED, SOFTMAX = range(4)

# By name, with the reason; none at present.
UNMAPPABLE = {}


def node_tests():
    with np.errstate(all="ignore"):
        import onnx.backend.test.case.node.attention  # noqa: F401  (importing it collects its cases)
        from onnx.backend.test.case.node import _NodeTestCases
    return {
        case.name: case
        for case in _NodeTestCases
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type == "Attention"
    }


CASES = node_tests()


def heads_apart(x, num_heads):
    """(B, S, heads * D) as (B, heads, S, D): a view."""
    return x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2) if x.ndim == 3 else x


def split_mask(mask, seqlen_k, dtype):
    """Our mask and bias; ONNX lets a mask be narrower than the keys: those beyond it are hidden."""
    if mask is None:
        return {}
    missing = seqlen_k - mask.shape[-1]
    hidden = False if mask.dtype == bool else -np.inf
    if missing and mask.shape[-1] > 1:
        mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, missing)], constant_values=hidden)
    return {"mask": mask} if mask.dtype == bool else {"bias": mask.astype(dtype)}


def run(inputs, attributes):
    """The node in attnext's terms; returns its outputs by name."""
    q, k, v = (
        heads_apart(inputs[name], attributes.get("q_num_heads" if name == "Q" else "kv_num_heads"))
        for name in "QKV"
    )
    past = inputs.get("past_key")
    if past is not None:
        k, v = np.concatenate([past, k], 2), np.concatenate([inputs["past_value"], v], 2)
    lengths = inputs.get("nonpad_kv_seqlen")
    offset = 0 if past is None else past.shape[2]
    options = {
        "scale": attributes.get("scale"),
        "softcap": attributes.get("softcap"),
        "causal": bool(attributes.get("is_causal", 0)),
        "window": (attributes.get("left_window_size", -1), attributes.get("right_window_size", -1)),
        "q_offset": offset if lengths is None else lengths - q.shape[2],
        "kv_lengths": lengths,
        **split_mask(inputs.get("attn_mask"), k.shape[2], q.dtype),
    }
    out = attnext.attention(q, k, v, **options)
    if inputs["Q"].ndim == 3:
        out = out.swapaxes(1, 2).reshape(*out.shape[0::2][:1], out.shape[2], -1)
    scores = scores_at(attributes.get("qk_matmul_output_mode", RAW), q, k, options)
    return {"Y": out, "present_key": k, "present_value": v, "qk_matmul_output": scores}


def scores_at(mode, q, k, options):
    """attnext keeps no scores: they are the logarithm of the weights, plus lse."""
    if mode == SOFTMAX:
        return attnext.attention_weights(q, k, **options)
    kept = {RAW: ("scale",), CAPPED: ("scale", "softcap"), BIASED: tuple(options)}[mode]
    options = {name: options[name] for name in kept}
    lse = attnext.attention_stats(q, k, **options).lse[..., None]
    with np.errstate(divide="ignore"):
        return np.log(attnext.attention_weights(q, k, **options)) + lse


def test_cases_were_found():
    assert len(CASES) >= 60
    assert set(UNMAPPABLE) <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_node(name):
    if name in UNMAPPABLE:
        pytest.skip(UNMAPPABLE[name])
    case = CASES[name]
    node = case.model.graph.node[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for given, expected in case.data_sets:
        present = [slot for slot, value in zip(INPUTS, node.input, strict=False) if value]
        wanted = [slot for slot, value in zip(OUTPUTS, node.output, strict=False) if value]
        results = run(dict(zip(present, map(np.asarray, given), strict=True)), attributes)
        for slot, truth in zip(wanted, map(np.asarray, expected), strict=True):
            bound = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}[truth.dtype.name]
            found, truth = (x.astype(np.float64) for x in (results[slot], truth))
            assert found.shape == truth.shape, slot
            np.testing.assert_allclose(found, truth, rtol=bound, atol=bound, err_msg=slot)
