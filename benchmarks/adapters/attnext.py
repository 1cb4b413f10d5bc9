"""How does attnext run a case? By its public functions."""

import numpy as np

import attnext


def version():
    """The library's version."""
    return attnext.__version__


def why_not(case):
    """Nothing is refused: the cases are written for it."""
    return None


def options_of(case, inputs):
    """The keyword arguments of the case, for attnext and for its reference."""
    options = {"score": case.score, "scale": case.scale, "causal": case.causal}
    if case.score == "additive":
        options["score"] = attnext.AdditiveScore(inputs["weight"])
    if case.window:
        options["window"] = case.window
    if case.softcap:
        options["softcap"] = case.softcap
    if case.dropout:
        options |= {"dropout": case.dropout, "seed": 7}
    if case.lengths:
        ends = inputs["cu_seqlens"]
        options |= {"layout": "thd", "cu_seqlens_q": ends, "cu_seqlens_k": ends}
    names = ("bias", "mask", "alibi_slopes", "sinks")
    return options | {name: inputs[name] for name in names if name in inputs}


def rounded(case, array):
    """An input in the case's dtype."""
    if case.dtype != "bfloat16":
        return array.astype(case.dtype)
    import ml_dtypes

    return array.astype(ml_dtypes.bfloat16)


def prepare(case, inputs, threads):
    """The call, ready to be timed."""
    attnext.set_num_threads(threads)
    q, k, v = (rounded(case, inputs[name]) for name in "qkv")
    options = options_of(case, inputs)
    if not case.backward:
        return lambda: attnext.attention(q, k, v, **options)
    dout = rounded(case, inputs["dout"])
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    return lambda: attnext.attention_backward(dout, q, k, v, out, lse, **options)


def read(case, result):
    """The arrays of the result."""
    if not case.backward:
        return {"out": np.asarray(result, np.float64)}
    return {name: getattr(result, name).astype(np.float64) for name in ("dq", "dk", "dv")}
