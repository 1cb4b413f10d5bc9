"""Which problems are the kernels tried on? Named cases as data, a line each, over every option.

A case says sizes, memory order, data and options; `inputs.py` makes the arrays. In its options

- a mask or bias is a pattern of axes, right-aligned to (b, h, q, k), a dot where it is broadcast: ``"..qk"``;
- ``scale``, ``alibi_slopes`` and ``sinks`` may be patterns too: ``"h"``, ``"bh"``;
- ``score="additive"`` takes the pattern of its weight and of its bias: ``"additive:hd:d"``.
"""

# ruff: noqa: E501  (a case is a line)
from dataclasses import dataclass, field

from inputs import DTYPES, Maker


@dataclass(frozen=True)
class Case:
    """One problem; `lengths` packs sequences (thd), `page_size` makes k and v pages."""

    name: str
    batch: int = 2
    heads: tuple = (2, 2)
    seqlens: tuple = (17, 33)
    dims: tuple = (16, 16)
    layout: str = "bhsd"
    rank: int = 4
    strides: str = "plain"
    data: str = "normal"
    lengths: tuple = ()
    page_size: int = 0
    bias_dtype: str = ""
    bias_hole: float = 0.0
    is_core: bool = False
    options: dict = field(default_factory=dict)

    def __str__(self):
        return self.name

    def inputs(self, dtype, additive_score):
        """Draw q, k, v, dout, dlse and the options of a call, in ``dtype``."""
        return Maker(self, DTYPES[dtype], additive_score).inputs()


def _case(name, **fields):
    known = {key: fields.pop(key) for key in list(fields) if key in Case.__dataclass_fields__}
    return Case(name, **known, options=fields)


_EDGES = (
    1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 191, 192, 193, 255, 256, 257,
)  # fmt: skip
_HEAD_DIMS = (
    1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 96, 127, 128, 129, 160, 192, 255, 256,
)  # fmt: skip

CASES = [
    _case("plain", is_core=True),
    *(_case(f"square_{s}", batch=1, heads=(1, 1), seqlens=(s, s), dims=(8, 8)) for s in _EDGES),
    *(_case(f"causal_{s}", batch=1, heads=(1, 1), seqlens=(s, s), dims=(8, 8), causal=True) for s in _EDGES),
    *(_case(f"head_dim_{d}", batch=1, seqlens=(19, 37), dims=(d, d), causal=True, is_core=d in (1, 17, 64, 128, 256)) for d in _HEAD_DIMS),
    *(_case(f"value_dim_{dv}", batch=1, seqlens=(19, 37), dims=(d, dv)) for d, dv in ((16, 1), (1, 16), (64, 48), (40, 72), (128, 64), (3, 5), (65, 256))),
    *(_case(f"decode_{s}", seqlens=(s, 3000), heads=(4, 2), dims=(32, 32), causal=True, is_core=s == 1) for s in (1, 2, 3, 4)),
    _case("decode_odd_dims", seqlens=(1, 1234), heads=(8, 1), dims=(65, 33), causal=True),
    _case("many_chunks", batch=1, seqlens=(40, 1500), heads=(2, 1), dims=(24, 24), is_core=True),
    _case("many_chunks_square", batch=1, seqlens=(700, 700), heads=(1, 1), dims=(16, 16), causal=True),
    _case("many_chunks_window", batch=1, seqlens=(1300, 1100), heads=(2, 1), dims=(20, 12), window=(100, 30)),
    _case("many_chunks_few_keys", batch=1, seqlens=(1300, 600), heads=(1, 1), dims=(16, 16), causal=True),
    _case("many_chunks_cosine", batch=1, score="cosine", scale=3.0, seqlens=(300, 1100), dims=(20, 12)),
    _case("many_queries", batch=1, seqlens=(1500, 7), heads=(1, 1)),
    # Empty and single
    _case("no_queries", seqlens=(0, 5)),
    _case("no_keys", seqlens=(5, 0), is_core=True),
    _case("no_keys_but_a_sink", seqlens=(5, 0), sinks="h"),
    _case("nothing", seqlens=(0, 0)),
    _case("no_batch", batch=0),
    _case("one_of_each", batch=1, heads=(1, 1), seqlens=(1, 1), dims=(1, 1)),
    # Ranks and layouts
    _case("rank_3", batch=1, rank=3, heads=(4, 2), causal=True),
    _case("rank_2", batch=1, rank=2, heads=(1, 1), causal=True, scale="h", sinks="h"),
    _case("bshd", layout="bshd", heads=(4, 2), causal=True, is_core=True),
    _case("bshd_rank_3", batch=1, layout="bshd", rank=3, heads=(4, 2), bias="hqk"),
    _case("bshd_rank_2", batch=1, layout="bshd", rank=2, heads=(1, 1), mask="qk"),
    # Heads
    _case("gqa", heads=(6, 2), is_core=True),
    _case("mqa", heads=(5, 1), causal=True),
    _case("gqa_everything", heads=(4, 2), score="dot", scale="h", softcap=2.0, bias="bhqk", mask="..qk", alibi_slopes="bh", sinks="h", causal=True, dropout=0.2, seed=7, is_core=True),
    _case("many_heads", heads=(12, 12), seqlens=(9, 10), dims=(8, 8)),
    # Strides
    *(_case(f"strides_{strides}", strides=strides, heads=(4, 2), seqlens=(21, 35), dims=(19, 23), causal=True, is_core=strides in ("spread", "reversed")) for strides in ("reversed", "transposed", "interleaved", "broadcast_heads", "broadcast_rows", "fortran", "spread", "shifted")),
    _case("strides_spread_bshd", strides="spread", layout="bshd", bias=".hqk"),
    _case("strides_reversed_additive", strides="reversed", score="additive:hd:hd", seqlens=(7, 9), dims=(5, 6)),
    # Scale
    _case("scale", scale=0.3),
    _case("scale_negative", scale=-0.7),
    _case("scale_zero", scale=0.0),
    _case("scale_per_head", scale="h", is_core=True),
    # Causal, offset, window
    *(_case(f"causal_{name}_{sq}_{sk}", seqlens=(sq, sk), causal=causal) for name, causal in (("true", True), ("bottom_right", "bottom_right"), ("top_left", "top_left")) for sq, sk in ((37, 20), (20, 37), (1, 30), (30, 1))),
    _case("offset", seqlens=(20, 33), causal=True, q_offset=5),
    _case("offset_negative", seqlens=(20, 33), causal=True, q_offset=-4),
    _case("offset_beyond", seqlens=(20, 33), causal=True, q_offset=50),
    _case("offset_far", seqlens=(5, 9), causal=True, q_offset=2**40),
    _case("offset_per_batch", batch=3, seqlens=(20, 33), causal=True, q_offset=(0, 13, -3), is_core=True),
    _case("window", seqlens=(70, 90), window=(5, 3), is_core=True),
    _case("window_self", seqlens=(33, 33), window=(0, 0)),
    _case("window_left", seqlens=(70, 70), window=(9, -1)),
    _case("window_right", seqlens=(70, 70), window=(-1, 9)),
    _case("window_open", seqlens=(33, 33), window=(-1, -1)),
    _case("window_causal", seqlens=(130, 130), window=(20, 20), causal=True),
    _case("window_top_left", seqlens=(30, 60), window=(4, -1), causal="top_left"),
    _case("window_outside", seqlens=(8, 20), window=(2, 2), q_offset=100),
    _case("window_huge", seqlens=(8, 20), window=(2**40, 2**40)),
    _case("window_offset_long", batch=1, seqlens=(300, 300), heads=(1, 1), window=(40, 10), q_offset=-7),
    # Softcap
    _case("softcap", softcap=1.5, is_core=True),
    _case("softcap_tight", softcap=0.05, data="large"),
    _case("softcap_wide", softcap=50.0),
    _case("softcap_causal", softcap=1.0, causal=True, mask="bhqk"),
    # Mask and bias
    *(_case(f"mask_{axes.replace('.', '_')}", heads=(4, 2), mask=axes, is_core=axes == "bhqk") for axes in ("bhqk", "b..k", ".h..", "..qk", "qk", "k", "bh.k", "...." , "hqk", "b.q.")),
    *(_case(f"bias_{axes.replace('.', '_')}", heads=(4, 2), bias=axes, is_core=axes in ("bhqk", ".hqk")) for axes in ("bhqk", "b..k", ".h..", "..qk", "qk", "k", "bh.k", "....", ".hqk", "b.q.", "h.k", ".")),
    _case("mask_and_bias", mask="b..k", bias="hqk", causal=True),
    _case("mask_bias_window", seqlens=(70, 90), mask="..qk", bias="b..k", window=(20, 5)),
    *(_case(f"bias_in_{dtype}", bias="hqk", bias_dtype=dtype) for dtype in DTYPES),
    _case("bias_with_holes", bias="bhqk", bias_hole=0.3, is_core=True),
    _case("bias_all_holes", bias="..qk", bias_hole=1.0),
    _case("bias_holes_and_sink", bias="bhq.", bias_hole=0.5, sinks="h"),
    _case("bias_shared_by_long_and_short", batch=3, heads=(8, 8), seqlens=(5, 1100), dims=(4, 4), kv_lengths=(1100, 600, 1050), bias="..qk"),
    _case("bias_long", batch=1, heads=(2, 1), seqlens=(130, 270), bias="hqk", bias_hole=0.05),
    # ALiBi and sinks
    _case("alibi", alibi_slopes="h", is_core=True),
    _case("alibi_per_batch", alibi_slopes="bh", causal=True),
    _case("alibi_top_left", alibi_slopes="h", causal="top_left", seqlens=(20, 40)),
    _case("alibi_offset", alibi_slopes="h", q_offset=(3, -9), seqlens=(20, 40)),
    _case("alibi_long", batch=1, alibi_slopes="h", seqlens=(200, 300)),
    _case("sinks", sinks="h", is_core=True),
    _case("sinks_causal_empty_rows", sinks="h", seqlens=(20, 10), causal=True),
    _case("sinks_gqa", heads=(4, 1), sinks="h", softcap=1.0),
    # Dropout
    _case("dropout", dropout=0.3, seed=1234567890123, is_core=True),
    _case("dropout_gqa_causal", heads=(4, 2), dropout=0.5, seed=2**63 + 1, causal=True),
    _case("dropout_all", dropout=1.0, seed=3),
    _case("dropout_long", batch=1, heads=(3, 1), seqlens=(70, 300), dropout=0.1, seed=5),
    _case("dropout_window", seqlens=(70, 90), window=(9, 3), dropout=0.4, seed=0),
    # Lengths
    _case("kv_lengths", batch=4, kv_lengths=(33, 1, 0, 20), is_core=True),
    _case("q_lengths", batch=3, q_lengths=(17, 0, 5)),
    _case("both_lengths", batch=3, q_lengths=(17, 3, 5), kv_lengths=(2, 33, 16), causal=True),
    _case("lengths_everything", batch=3, heads=(4, 2), q_lengths=(17, 3, 5), kv_lengths=(2, 33, 16), window=(7, 2), bias="bhqk", mask="..qk", alibi_slopes="h", sinks="h", dropout=0.2, seed=9, is_core=True),
    _case("lengths_top_left", batch=2, q_lengths=(9, 17), kv_lengths=(20, 30), causal="top_left"),
    _case("lengths_bshd", batch=2, layout="bshd", q_lengths=(9, 17), kv_lengths=(20, 30), causal=True),
    # Packed
    _case("packed", batch=1, rank=3, layout="thd", lengths=((5, 0, 17, 3), (9, 4, 33, 0)), heads=(4, 2), is_core=True),
    _case("packed_causal", batch=1, rank=3, layout="thd", lengths=((5, 1, 17), (9, 1, 17)), causal=True),
    _case("packed_window", batch=1, rank=3, layout="thd", lengths=((50, 1, 70), (90, 1, 64)), window=(5, 2)),
    _case("packed_everything", batch=1, rank=3, layout="thd", lengths=((5, 30, 17), (9, 20, 40)), heads=(4, 2), causal=True, bias="bhqk", mask="b..k", alibi_slopes="bh", sinks="h", scale="h", softcap=2.0, dropout=0.3, seed=11, is_core=True),
    _case("packed_one", batch=1, rank=3, layout="thd", lengths=((9,), (13,)), q_offset=(2,), causal=True),
    _case("packed_many_tiny", batch=1, rank=3, layout="thd", lengths=((1,) * 40, (1, 2, 3, 4) * 10)),
    _case("packed_strided", batch=1, rank=3, layout="thd", lengths=((5, 17), (9, 33)), strides="spread"),
    _case("packed_additive", batch=1, rank=3, layout="thd", lengths=((4, 6), (5, 3)), score="additive:d", dims=(6, 6)),
    # Pages
    *(_case(f"pages_of_{size}", batch=3, heads=(4, 2), seqlens=(3, 0), page_size=size, kv_lengths=(33, 1, 20), causal=True, is_core=size == 16) for size in (1, 3, 16, 64)),
    _case("pages_empty_sequence", batch=3, seqlens=(2, 0), page_size=4, kv_lengths=(7, 0, 8)),
    _case("pages_bshd", batch=2, layout="bshd", heads=(4, 2), seqlens=(5, 0), page_size=8, kv_lengths=(30, 11), window=(9, 0), sinks="h"),
    _case("pages_long", batch=2, heads=(8, 2), seqlens=(1, 0), dims=(64, 64), page_size=16, kv_lengths=(1000, 777), alibi_slopes="h"),
    _case("pages_spread", batch=2, strides="spread", seqlens=(5, 0), page_size=8, kv_lengths=(30, 11)),
    # Scores
    _case("cosine", score="cosine", scale=8.0, is_core=True),
    _case("cosine_per_head", score="cosine", scale="h", heads=(4, 2), causal=True),
    _case("cosine_zeros", score="cosine", scale=3.0, data="zeros"),
    _case("cosine_odd", score="cosine", scale=3.0, dims=(33, 7), seqlens=(49, 65), bias="hqk", softcap=2.0),
    _case("neg_l2", score="neg_l2", is_core=True),
    _case("neg_l2_twins", score="neg_l2", data="twins", scale="h"),
    _case("neg_l2_gqa", score="neg_l2", heads=(4, 2), scale=0.5, causal=True, dims=(33, 7), seqlens=(49, 65)),
    _case("neg_sq_l2", score="neg_sq_l2", scale=0.2, is_core=True),
    _case("neg_sq_l2_per_head", score="neg_sq_l2", heads=(4, 2), scale="h", mask="..qk"),
    _case("neg_sq_l2_long", batch=1, score="neg_sq_l2", scale=0.1, seqlens=(130, 270), dims=(27, 3)),
    *(_case(f"additive_{patterns.replace(':', '_')}", score=f"additive:{patterns}", seqlens=(9, 17), dims=(8, 8), heads=(4, 2), is_core=patterns == "hd:hd") for patterns in ("d", "hd", "d:d", "hd:hd", "hd:d", "d:hd")),
    _case("additive_scaled", score="additive:hd:hd", scale="h", softcap=1.0, seqlens=(17, 65), dims=(9, 5), causal=True, sinks="h"),
    _case("additive_dropout", score="additive:d", dropout=0.3, seed=4, seqlens=(9, 17), kv_lengths=(17, 4)),
    # Data that tries the running maximum
    _case("growing", data="growing", seqlens=(20, 300), is_core=True),
    _case("spike", data="spike", seqlens=(20, 300), is_core=True),
    _case("first_outweighs", data="first", seqlens=(20, 300)),
    _case("growing_decode", data="growing", seqlens=(1, 2000), causal=True),
    _case("spike_decode", data="spike", seqlens=(2, 2000)),
    _case("large", data="large"),
    _case("equal_keys", strides="broadcast_rows", seqlens=(20, 70)),
]  # fmt: skip

EVERY = [(case, dtype) for case in CASES for dtype in DTYPES]
DIFFERENTIABLE = [(case, dtype) for case, dtype in EVERY if not case.page_size]
