"""Is out right, and lse, for every case in every dtype?"""

import numpy as np
import pytest

import attnext
from attnext import reference
from cases import EVERY
from tolerance import WIDER, check


def core(pairs):
    return [
        pytest.param(
            case, dtype, id=f"{case}-{dtype}", marks=pytest.mark.core if case.is_core else ()
        )
        for case, dtype in pairs
    ]


@pytest.mark.parametrize(("case", "dtype"), core(EVERY))
def test_forward(case, dtype):
    x = case.inputs(dtype, attnext.AdditiveScore)
    results = attnext.attention(x.q, x.k, x.v, return_lse=True, **x.options)
    truth = reference.attention(x.q, x.k, x.v, return_lse=True, dtype=WIDER[dtype], **x.options)
    naive = reference.attention(x.q, x.k, x.v, return_lse=True, dtype=x.q.dtype, **x.options)
    assert results[0].dtype == x.q.dtype
    assert results[1].dtype == x.dlse.dtype
    for name, *tensors in zip(("out", "lse"), results, truth, naive, strict=True):
        check(name, *tensors, x, lse=truth[1])


@pytest.mark.parametrize(("case", "dtype"), core(EVERY))
def test_lse_costs_no_bit(case, dtype):
    x = case.inputs(dtype, attnext.AdditiveScore)
    out, _ = attnext.attention(x.q, x.k, x.v, return_lse=True, **x.options)
    again = attnext.attention(x.q, x.k, x.v, **x.options)
    assert np.array_equal(out.view(np.uint8), again.view(np.uint8))
