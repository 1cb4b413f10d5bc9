"""Is every gradient right, for every case in every dtype?"""

import numpy as np
import pytest

import attnext
from attnext import reference
from cases import DIFFERENTIABLE
from test_forward import core
from tolerance import WIDER, check


def owners(x):
    """What each gradient belongs to."""
    options = x.options
    score, scale = options.get("score"), options.get("scale")
    return {
        "dq": x.q, "dk": x.k, "dv": x.v, "dbias": options.get("bias"),
        "dalibi_slopes": options.get("alibi_slopes"), "dsinks": options.get("sinks"),
        "dscale": scale if np.ndim(scale) else None, "dweight": getattr(score, "weight", None),
        "dscore_bias": getattr(score, "bias", None),
    }  # fmt: skip


def check_backward(case, dtype, has_dlse):
    x = case.inputs(dtype, attnext.AdditiveScore)
    dlse = x.dlse if has_dlse else None

    def gradients(library, **precision):
        out, lse = library.attention(x.q, x.k, x.v, return_lse=True, **precision, **x.options)
        grads = library.attention_backward(
            x.dout, x.q, x.k, x.v, out, lse, dlse=dlse, **precision, **x.options
        )
        return {"lse": lse, **grads._asdict()}

    results, truth = gradients(attnext), gradients(reference, dtype=WIDER[dtype])
    naive = gradients(reference, dtype=x.q.dtype)
    for name, owner in owners(x).items():
        actual = results[name]
        if owner is None:
            assert actual is None, f"{name} belongs to nothing"
            continue
        assert actual.dtype == owner.dtype, f"{name} must have its owner's dtype"
        check(name, actual, truth[name], naive[name], x, lse=truth["lse"])


@pytest.mark.parametrize(("case", "dtype"), core(DIFFERENTIABLE))
def test_backward(case, dtype):
    check_backward(case, dtype, has_dlse=True)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [pytest.param(*pair, id=f"{pair[0]}-{pair[1]}") for pair in DIFFERENTIABLE if pair[0].is_core],
)
def test_backward_of_out_alone(case, dtype):
    check_backward(case, dtype, has_dlse=False)
