"""Are the gradients that are asked for the same as when all of them are?"""

import numpy as np
import pytest

import attnext
from attnext import AttentionGrads
from cases import DIFFERENTIABLE
from draws import problem
from test_backward import owners
from test_forward import core

#: Beside each field by itself: every combination of the three that share most of the work.
TOGETHER = [("dq", "dk"), ("dq", "dv"), ("dk", "dv"), ("dq", "dk", "dv")]


#: What is not asked for may leave a shorter path, which rounds differently.
ROUNDING = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}


def backward(x, **options):
    out, lse = attnext.attention(x.q, x.k, x.v, return_lse=True, **x.options)
    return attnext.attention_backward(
        x.dout, x.q, x.k, x.v, out, lse, dlse=x.dlse, **x.options, **options
    )


@pytest.mark.parametrize(
    ("case", "dtype"), core(pair for pair in DIFFERENTIABLE if pair[0].is_core)
)
def test_each_by_itself(case, dtype):
    x = case.inputs(dtype, attnext.AdditiveScore)
    everything = backward(x)._asdict()
    there = [(name,) for name, owner in owners(x).items() if owner is not None]
    for wanted in [*there, *TOGETHER]:
        for name, found in backward(x, wanted=wanted)._asdict().items():
            if name in wanted:
                expected = np.asarray(everything[name], np.float64)
                atol = ROUNDING[dtype] * max(1, np.nanmax(np.abs(expected), initial=0))
                assert np.allclose(
                    np.asarray(found, np.float64), expected, rtol=0, atol=atol, equal_nan=True
                ), (name, wanted)
            else:
                assert found is None, (name, wanted)


def arguments():
    q, k, v = problem()[:3]
    out, lse = attnext.attention(q, k, v, return_lse=True)
    return np.ones_like(out), q, k, v, out, lse


def test_nothing_and_what_is_not_there():
    for wanted in ((), ["dbias", "dsinks"]):
        grads = attnext.attention_backward(*arguments(), wanted=wanted)
        assert grads == AttentionGrads(*[None] * 9)


def test_reference_and_vjp():
    dout, q, k, v, out, lse = arguments()
    grads = attnext.attention_backward(dout, q, k, v, out, lse, wanted=["dk"], backend="reference")
    _, vjp = attnext.attention_vjp(q, k, v)
    of_vjp = vjp(dout, wanted=["dk"])
    assert [x is None for x in grads] == [x is None for x in of_vjp] == [True, False] + [True] * 7
    assert np.allclose(grads.dk, of_vjp.dk)


@pytest.mark.parametrize("wanted", [["dq", "dx"], "dq"])
def test_other_names_are_refused(wanted):
    with pytest.raises(ValueError, match="attention_backward: wanted must name gradients among dq"):
        attnext.attention_backward(*arguments(), wanted=wanted)


def test_no_sequence_is_refused():
    with pytest.raises(TypeError, match="attention_backward: wanted must be a sequence, found int"):
        attnext.attention_backward(*arguments(), wanted=3)
