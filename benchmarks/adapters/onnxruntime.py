"""How does ONNX Runtime run a case? By its fused MultiHeadAttention operator.

With fewer key heads or a softcap, which that one lacks, by the standard Attention operator.
"""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from .numpy import additive_mask, too_large


def version():
    """The library's version."""
    return onnxruntime.__version__


def why_not(case):
    """Forward, dot products, float32."""
    if case.backward:
        return "forward only"
    if case.score != "dot" or case.sinks or case.dropout:
        return "no such score, sink or dropout"
    if case.lengths:
        return "no packed sequences"
    if case.dtype != "float32":
        return "its fused operator is float32 on a CPU"
    return too_large(case) if case.causal else None


def prepare(case, inputs, threads):
    """The call, ready to be timed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    added = _added(case, inputs)
    standard = case.softcap or case.heads != case.key_heads
    model, feed = (_attention if standard else _multi_head_attention)(case, inputs, added)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, feed)[0]


def _own_causal(case):
    return case.causal and case.window is None and case.seqlen == case.keys


def _added(case, inputs):
    plain = "bias" in inputs or case.mask or case.alibi
    if _own_causal(case) and not plain:
        return None
    added = additive_mask(case, inputs)
    if added is None:
        return None
    # Its kernels add in float32 and want a finite number for what is masked.
    added = np.maximum(added, np.finfo(np.float32).min)
    added = added.reshape((1,) * (4 - added.ndim) + added.shape)
    return np.ascontiguousarray(added)


def _model(node, feed, rank, domain, opset):
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in feed.items()
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * rank)
    graph = helper.make_graph([node], "attention", values, [out])
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _multi_head_attention(case, inputs, added):
    """Its operator takes (B, S, heads · head_dim)."""
    feed = {name: _heads_last(inputs[name]) for name in "qkv"}
    names = ["q", "k", "v"]
    if added is not None:
        feed["added"] = added
        names += ["", "", "added"]
    node = helper.make_node(
        "MultiHeadAttention", names, ["out"], domain="com.microsoft", num_heads=case.heads,
        scale=case.scale, unidirectional=int(_own_causal(case) and added is None),
    )  # fmt: skip
    return _model(node, feed, 3, "com.microsoft", 20), feed


def _attention(case, inputs, added):
    """The operator of opset 23: (B, heads, S, head_dim)."""
    feed = {name: inputs[name] for name in "qkv"}
    if added is not None:
        feed["added"] = added
    node = helper.make_node(
        "Attention", list(feed), ["out"], scale=case.scale, softcap=case.softcap or 0.0,
        is_causal=int(_own_causal(case) and added is None),
    )  # fmt: skip
    return _model(node, feed, 4, "", 23), feed


def _heads_last(array):
    batch, heads, seqlen, head_dim = array.shape
    array = np.ascontiguousarray(array.transpose(0, 2, 1, 3))
    return array.reshape(batch, seqlen, heads * head_dim)


def read(case, result):
    """The arrays of the result, with heads in front."""
    if result.ndim == 3:
        result = result.reshape(case.batch, case.seqlen, case.heads, -1).transpose(0, 2, 1, 3)
    return {"out": result}
