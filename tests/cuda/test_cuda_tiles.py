"""Do tiles come whole, ragged and turned as they should, and weights against any base?

Rows come by streams where they lie at equal distances and a tile has all of them, row by row
elsewhere; most tiles are not masked; a base is raised when scores outgrow it. Sizes here are a few
tiles of every kernel.
"""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import attnext
from attnext import reference
from both_passes import check_all, passes
from courses import COURSES, inputs, relative_error

HALVES = [np.float16, ml_dtypes.bfloat16]


def drawn(dtype, *, head_dim, heads=(2, 2), seqlens=(150, 200), head_dim_v=None, **options):
    """Arrays [heads, seqlen, head_dim] of one sequence."""
    rng = np.random.default_rng(5)
    (num_q, num_kv), (seqlen_q, seqlen_k) = heads, seqlens
    wide = head_dim_v or head_dim
    shapes = {
        "q": (num_q, seqlen_q, head_dim),
        "k": (num_kv, seqlen_k, head_dim),
        "v": (num_kv, seqlen_k, wide),
        "dout": (num_q, seqlen_q, wide),
        "dlse": (num_q, seqlen_q),
    }
    x = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    x["dlse"] = x["dlse"].astype(np.float32)
    return SimpleNamespace(**x, options=options)


# 20: chunks that are not whole; 40, 72, 80: whole ones, fewer than a tile has.
@pytest.mark.parametrize("head_dim", [20, 32, 40, 64, 72, 80, 96, 128, 160, 256])
@pytest.mark.parametrize("rule", [{}, {"causal": True}, {"window": (70, 20)}], ids=str)
def test_widths(head_dim, rule, backend):
    x = drawn(np.float16, head_dim=head_dim, **rule)
    check_all(passes(attnext, x, backend=backend), x)


@pytest.mark.parametrize("head_dim", [40, 64, 128])
def test_widths_of_float32(head_dim, backend, fast):
    x = drawn(np.float32, head_dim=head_dim, causal=True)
    check_all(passes(attnext, x, backend=backend), x)


@pytest.mark.parametrize(("head_dim", "head_dim_v"), [(64, 40), (40, 64), (128, 80), (20, 128)])
def test_two_widths(head_dim, head_dim_v, backend):
    x = drawn(np.float16, head_dim=head_dim, head_dim_v=head_dim_v)
    check_all(passes(attnext, x, backend=backend), x)


# Multiples of every tile, one row more, one less, fewer than a tile; and what begins in the middle.
@pytest.mark.parametrize("seqlens", [(192, 192), (193, 129), (127, 191), (40, 7), (20, 300)])
@pytest.mark.parametrize("heads", [(1, 1), (6, 2)])
@pytest.mark.parametrize("rule", [{}, {"causal": True}, {"window": (50, 0)}], ids=str)
def test_heads_of_a_group_follow_each_other(seqlens, heads, rule, backend):
    x = drawn(ml_dtypes.bfloat16, head_dim=64, heads=heads, seqlens=seqlens, **rule)
    check_all(passes(attnext, x, backend=backend), x)


def test_scales_that_differ_within_a_group(backend):
    """Which the plain kernels of backward do not take."""
    x = drawn(np.float16, head_dim=64, heads=(4, 2), scale=np.array([0.1, 0.2, 0.05, 0.05]))
    check_all(passes(attnext, x, backend=backend), x)
    x.options["scale"] = np.array([0.1, 0.1, 0.05, 0.05])
    check_all(passes(attnext, x, backend=backend), x)


@pytest.mark.parametrize(
    "option",
    [
        {"softcap": 3.0},
        {"alibi_slopes": np.array([0.1, 0.02, 0.3, 0.0])},
        {"mask": np.arange(200) % 3 > 0},
        {"bias": np.linspace(-2, 2, 150 * 200, dtype=np.float32).reshape(150, 200)},
        {"score": "cosine", "scale": 4.0},
        {"dropout": 0.2, "seed": 3},
    ],
    ids=lambda option: next(iter(option)),
)
def test_options_around_four_pairs(option, backend):
    x = drawn(np.float16, head_dim=64, heads=(4, 2), causal=True, **option)
    check_all(passes(attnext, x, backend=backend), x)


def test_packed_sequences(backend):
    """Of lengths that leave a rest in every tile, their rows far apart in memory."""
    lengths = np.cumsum([0, 130, 3, 0, 97, 64])
    rng = np.random.default_rng(8)
    q, k, v = rng.normal(size=(3, lengths[-1], 4, 64)).astype(np.float16)
    options = {"layout": "thd", "cu_seqlens_q": lengths, "cu_seqlens_k": lengths, "causal": True}
    x = SimpleNamespace(
        q=q,
        k=k,
        v=v,
        dout=rng.normal(size=q.shape).astype(np.float16),
        dlse=rng.normal(size=q.shape[:2][::-1]).astype(np.float32),
        options=options,
    )
    check_all(passes(attnext, x, backend=backend), x)


@pytest.mark.parametrize("neighbours", [False, True], ids=["alike", "mixed"])
@pytest.mark.parametrize("dtype", [np.float32, *HALVES])
@pytest.mark.parametrize("course", COURSES)
def test_course(course, dtype, neighbours, backend, fast):
    q, k, v = inputs(COURSES[course], dtype, neighbours)
    options = {"scale": 1.0}
    out, lse = attnext.attention(q, k, v, return_lse=True, backend=backend, **options)
    true_out, true_lse = reference.attention(q, k, v, return_lse=True, **options)
    # A score of 1000 has a float32 rounding of 6e-5, which is that of its weight.
    exact = {4: 2e-3, 2: 2e-2}[np.dtype(dtype).itemsize]
    assert relative_error(out, true_out) < exact
    assert relative_error(lse, true_lse) < 1e-6
    dout = np.ones_like(out)
    grads = attnext.attention_backward(dout, q, k, v, out, lse, backend=backend, **options)
    truth = reference.attention_backward(dout, q, k, v, true_out, true_lse, **options)
    assert relative_error(grads.dv, truth.dv) < exact


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("dtype", HALVES)
def test_bits_of_a_row_are_its_own(course, dtype, backend):
    """Whatever its neighbours do to the bases of the tile they share."""
    q, k, v = inputs(COURSES[course], dtype, neighbours=True)
    together = attnext.attention(q, k, v, scale=1.0, backend=backend)
    calm = q.copy()
    calm[::2] = 0
    alone = attnext.attention(calm, k, v, scale=1.0, backend=backend)
    np.testing.assert_array_equal(alone[1::2], together[1::2])
