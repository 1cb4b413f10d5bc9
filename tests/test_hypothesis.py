"""Does any combination of shapes, strides and options go wrong? Against the definition."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import attnext
from attnext import reference
from tolerance import WIDER, check

SCORES = ("dot", "cosine", "neg_l2", "neg_sq_l2", "additive")
DTYPES = (
    np.dtype(np.float64),
    np.dtype(np.float32),
    np.dtype(np.float16),
    np.dtype(ml_dtypes.bfloat16),
)


@st.composite
def broadcast_shapes(draw, full):
    """A shape that broadcasts to ``full``."""
    axes = [draw(st.sampled_from((1, size))) for size in full]
    return tuple(axes[draw(st.integers(0, len(axes))) :])


@st.composite
def views(draw, x):
    """``x`` in other memory: axes permuted, some reversed, some with gaps."""
    order = draw(st.permutations(range(x.ndim)))
    steps = [draw(st.sampled_from((1, 1, 2, -1, -2))) for _ in order]
    wide = np.zeros(
        [abs(step) * x.shape[axis] for axis, step in zip(order, steps, strict=True)], x.dtype
    )
    inverse = np.argsort(order)
    view = wide[tuple(slice(None, None, step) for step in steps)].transpose(inverse)
    view[...] = x
    return view


class Problem(SimpleNamespace):
    """The arrays and options of a call; a failure prints what they are, not all they hold."""

    def __repr__(self):
        def described(x):
            is_array = isinstance(x, np.ndarray) and x.size > 4
            return f"{x.dtype}{x.shape} strides {x.strides}" if is_array else repr(x)

        fields = {name: x for name, x in vars(self).items() if name not in ("rng", "options")}
        return ", ".join(f"{n}={described(x)}" for n, x in (fields | self.options).items())


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))
    batch, heads_k, group = (
        draw(st.integers(0, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
    )
    seqlen_q, seqlen_k = draw(st.integers(0, 70)), draw(st.integers(0, 70))
    dim, dim_v = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    heads = heads_k * group
    shapes = [
        (batch, heads, seqlen_q, dim),
        (batch, heads_k, seqlen_k, dim),
        (batch, heads_k, seqlen_k, dim_v),
    ]
    inputs = [draw(views(rng.normal(size=shape).astype(dtype))) for shape in shapes]
    dout = draw(views(rng.normal(size=(batch, heads, seqlen_q, dim_v)).astype(dtype)))
    named = dict(zip("qkv", inputs, strict=True))
    chosen = draw(options(rng, dtype, (batch, heads, seqlen_q, seqlen_k), dim))
    return Problem(rng=rng, **named, dout=dout, options=chosen)


@st.composite
def options(draw, rng, dtype, full, dim):
    batch, heads, _, seqlen_k = full
    statistic = np.float64 if dtype == np.float64 else np.float32
    chosen = {
        "score": draw(st.sampled_from(SCORES)),
        "causal": draw(st.sampled_from((False, True, "top_left"))),
    }
    if chosen["score"] == "additive":
        pattern = draw(st.sampled_from(((dim,), (heads, dim))))
        learned = [
            rng.normal(size=pattern).astype(statistic) for _ in range(draw(st.integers(1, 2)))
        ]
        chosen["score"] = attnext.AdditiveScore(*learned)
    if draw(st.booleans()) or chosen["score"] == "cosine":
        chosen["scale"] = draw(
            st.sampled_from((0.5, -0.3, rng.uniform(0.2, 1, heads).astype(statistic)))
        )
    if draw(st.booleans()):
        chosen["window"] = draw(st.tuples(st.integers(-1, 80), st.integers(-1, 80)))
    if draw(st.booleans()):
        offsets = st.integers(-80, 80)
        chosen["q_offset"] = draw(
            st.one_of(offsets, arrays.arrays(np.int64, batch, elements=offsets))
        )
    if draw(st.booleans()):
        chosen["softcap"] = draw(st.floats(0.5, 30))
    if draw(st.booleans()):
        chosen["mask"] = rng.random(draw(broadcast_shapes(full))) < 0.8
    if draw(st.booleans()):
        bias = rng.normal(size=draw(broadcast_shapes(full)))
        bias[rng.random(bias.shape) < 0.1] = -np.inf
        chosen["bias"] = bias.astype(draw(st.sampled_from((dtype, statistic))))
    if draw(st.booleans()):
        chosen["alibi_slopes"] = rng.uniform(
            0, 1, draw(st.sampled_from(((heads,), (batch, heads))))
        ).astype(statistic)
    if draw(st.booleans()):
        chosen["sinks"] = rng.normal(size=heads).astype(statistic)
    if draw(st.booleans()):
        chosen |= {"dropout": draw(st.floats(0, 0.9)), "seed": draw(st.integers(0, 2**64 - 1))}
    if draw(st.booleans()):
        chosen["kv_lengths"] = draw(
            arrays.arrays(np.int32, batch, elements=st.integers(0, seqlen_k))
        )
    return chosen


@given(problems())
def test_any_problem(x):
    dtype, shape = x.q.dtype, x.dout.shape[:3]
    dlse = x.rng.normal(size=shape).astype(np.float64 if dtype == np.float64 else np.float32)

    def everything(library, **precision):
        keywords = precision | x.options
        out, lse = library.attention(x.q, x.k, x.v, return_lse=True, **keywords)
        grads = library.attention_backward(x.dout, x.q, x.k, x.v, out, lse, dlse=dlse, **keywords)
        return {"out": out, "lse": lse} | grads._asdict()

    found, naive = everything(attnext), everything(reference, dtype=dtype)
    truth = everything(reference, dtype=WIDER[dtype.name])
    for name, expected in truth.items():
        if expected is None:
            assert found[name] is None, name
        else:
            check(name, found[name], expected, naive[name], x, lse=truth["lse"])


@given(problems())
def test_any_bidirectional_problem(x):
    v_q, dtype = x.rng.normal(size=(*x.q.shape[:3], 5)).astype(x.q.dtype), x.q.dtype

    def both(library, **precision):
        keywords = precision | x.options
        return library.bidirectional_attention(x.q, x.k, v_q, x.v, return_lse=True, **keywords)

    found, naive = both(attnext), both(reference, dtype=dtype)
    truth = both(reference, dtype=WIDER[dtype.name])
    for n, name in enumerate(("out", "out", "lse", "lse")):
        values = Problem(**vars(x) | {"v": (x.v, v_q)[n % 2]})
        check(name, found[n], truth[n], naive[n], values, lse=truth[2 + n % 2])
