"""How does OpenVINO run a case? By a model of one ScaledDotProductAttention operator."""

import numpy as np
import openvino as ov
from openvino import opset13

from .numpy import additive_mask, too_large

TYPES = {"float32": ov.Type.f32, "float16": ov.Type.f16, "bfloat16": ov.Type.bf16}


def version():
    """The library's version."""
    return ov.__version__


def why_not(case):
    """Forward, dot products, at most 32 bits."""
    if case.backward:
        return "forward only"
    if case.score != "dot" or case.softcap or case.sinks or case.dropout:
        return "no such score, softcap, sink or dropout"
    if case.lengths:
        return "no packed sequences"
    if case.heads != case.key_heads:
        return "its operator wants as many heads of k as of q"
    if case.dtype == "float64":
        return "no float64"
    return too_large(case) if case.causal else None


def prepare(case, inputs, threads):
    """The call, ready to be timed."""
    dtype = TYPES[case.dtype]
    own_causal = case.causal and case.window is None and case.seqlen == case.keys
    own_causal = own_causal and not ("bias" in inputs or case.mask or case.alibi)
    arrays = [inputs[name] for name in "qkv"]
    added = None if own_causal else additive_mask(case, inputs)
    if added is not None:
        added = np.maximum(added, np.finfo(np.float16).min)
        arrays.append(added.reshape((1,) * (4 - added.ndim) + added.shape))
    parameters = [opset13.parameter(array.shape, dtype) for array in arrays]
    scale = opset13.constant(np.float32(case.scale), dtype)
    nodes = list(parameters)
    if added is None:
        nodes.append(opset13.constant(np.zeros((1, 1), np.float32), dtype))
    attention = opset13.scaled_dot_product_attention(*nodes, scale, causal=own_causal)
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": dtype,
        "NUM_STREAMS": 1,
    }
    compiled = ov.Core().compile_model(ov.Model([attention], parameters), "CPU", config)
    request = compiled.create_infer_request()
    memory = [_memory(array, dtype) for array in arrays]
    for index, array in enumerate(memory):
        request.set_input_tensor(index, ov.Tensor(array, array.shape, dtype))
    return lambda: _infer(request, memory)


def _infer(request, memory):
    """One run; ``memory`` is what the input tensors point into, and must live as long."""
    request.infer()
    return request.get_output_tensor(0)


def _memory(array, dtype):
    """The array in a dtype of OpenVINO's; bfloat16, which NumPy lacks, as its bits."""
    if dtype != ov.Type.bf16:
        return np.ascontiguousarray(array.astype(dtype.to_dtype()))
    import ml_dtypes

    return np.ascontiguousarray(array.astype(ml_dtypes.bfloat16)).view(np.uint16)


def read(case, result):
    """The arrays of the result; bfloat16 comes as its bits."""
    if result.element_type != ov.Type.bf16:
        return {"out": np.array(result.data, np.float64)}
    bits = np.empty(tuple(result.shape), np.uint16)
    result.copy_to(ov.Tensor(bits, result.shape, ov.Type.bf16))
    return {"out": (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)}
