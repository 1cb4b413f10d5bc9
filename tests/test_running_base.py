"""Does the online softmax stay exact however a row's scores move from tile to tile?"""

import ml_dtypes
import numpy as np
import pytest

import attnext
from attnext import reference
from courses import COURSES, inputs, relative_error


@pytest.mark.parametrize("neighbours", [False, True], ids=["alike", "mixed"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("causal", [False, True])
def test_course(course, dtype, neighbours, causal):
    q, k, v = inputs(COURSES[course], dtype, neighbours)
    options = {"scale": 1.0, "causal": causal}
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    true_out, true_lse = reference.attention(q, k, v, return_lse=True, **options)
    # A score of 1000 has a float32 rounding of 6e-5, which is that of its weight.
    exact = {8: 1e-12, 4: 2e-3, 2: 2e-2}[np.dtype(dtype).itemsize]
    assert relative_error(out, true_out) < exact
    assert relative_error(lse, true_lse) < {8: 1e-14}.get(np.dtype(dtype).itemsize, 1e-6)
    dout = np.ones_like(out)
    grads = attnext.attention_backward(dout, q, k, v, out, lse, **options)
    truth = reference.attention_backward(dout, q, k, v, true_out, true_lse, **options)
    assert relative_error(grads.dv, truth.dv) < exact


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_bits_of_a_row_are_its_own(course, dtype):
    """Whatever its neighbours do to the tile they share."""
    q, k, v = inputs(COURSES[course], dtype, neighbours=True)
    together = attnext.attention(q, k, v, scale=1.0)
    calm = q.copy()
    calm[::2] = 0
    assert np.array_equal(attnext.attention(calm, k, v, scale=1.0)[1::2], together[1::2])


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"causal": True}], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, ml_dtypes.bfloat16])
def test_capped_bits_of_a_row_are_its_own(dtype, options):
    """A tile whose scores are all far below the cap takes a shorter way."""
    draw = np.random.default_rng(0).standard_normal
    q, k, v, dout = (draw((rows, 16)).astype(dtype) for rows in (150, 200, 200, 150))
    if "bias" in options:
        options = {"bias": draw((150, 200)).astype(dtype)}

    def passes(q):
        out, vjp = attnext.attention_vjp(q, k, v, softcap=4.0, **options)
        return out, vjp(dout).dq

    loud = q.copy()
    loud[::2] *= 40
    for calm, beside_loud in zip(passes(q), passes(loud), strict=True):
        assert np.array_equal(calm[1::2], beside_loud[1::2])


@pytest.mark.parametrize("seqlen_q", [1, 5, 60])
def test_all_scores_minus_infinity_or_nan(seqlen_q):
    q, k, v = (x.astype(np.float32) for x in inputs(COURSES["falls"], np.float64, False))
    q = q[:seqlen_q]
    k[:, -1] = -np.inf
    assert np.isnan(attnext.attention(q, k, v)).all()
    k[:, -1] = 0
    k[700] = np.nan
    assert np.isnan(attnext.attention(q, k, v)).all()
