"""Does `explain` name the path a call takes, and why not a faster one?"""

import json

import ml_dtypes
import numpy as np
import pytest

import attnext
from processes import supported_isas


def explain(heads, queries, keys, *, heads_k=None, head_dim=64, dtype=np.float32, **options):
    q = np.zeros((1, heads, queries, head_dim), dtype)
    k = np.zeros((1, heads_k or heads, keys, head_dim), dtype)
    return attnext.explain(q, k, k, **options)


@pytest.fixture
def two_threads():
    before = attnext.get_num_threads()
    attnext.set_num_threads(2)
    yield
    attnext.set_num_threads(before)


def test_many_queries_fill_lanes(two_threads):
    for options in ({}, {"causal": True}, {"bias": np.zeros((512, 512), np.float32)}):
        told = explain(8, 512, 512, **options)
        assert told["path"] == "lanes are queries"
        assert told["path_why"].startswith("512 rows")
        assert told["product"] == "dot"
        assert told["keys"] == "read in place"
        assert told["key_splits"] == 1
        assert (told["workers"], told["workers_why"]) == (2, "all threads")
        assert told["items"] >= 8 * -(-512 // told["tile_q"])  # the last ones are smaller


def test_decoding_fills_lanes_with_head_dims(two_threads):
    told = explain(8, 1, 4096, heads_k=8, head_dim=128)
    assert told["path"] == "lanes are head dimensions"
    assert told["path_why"].startswith("1 rows")
    assert "register_tile" not in told  # the tile of queries
    assert (told["key_splits"], told["items"]) == (4, 32)
    assert "few queries" in told["split_why"]


def test_a_score_of_sums_stays_with_queries_in_lanes():
    told = explain(1, 1, 64, score=attnext.AdditiveScore(np.ones(64, np.float32)))
    assert told["path"] == "lanes are queries"
    assert told["product"] == "additive"
    assert "side by side" in told["path_why"]
    assert explain(1, 9, 64, score="neg_l2")["product"] == "squared difference"


def test_tiny_call_runs_alone(two_threads):
    told = explain(1, 8, 8, head_dim=16)
    assert (told["workers"], told["workers_why"]) == (1, "one an item")
    told = explain(8, 8, 8, head_dim=16)
    assert (told["workers"], told["workers_why"]) == (1, "too little work to wake more")


def test_16_bits_say_what_they_are_widened_to():
    told = explain(8, 512, 512, dtype=np.float16)
    assert "widened to float32: no float16" in told["path_why"]
    assert told["keys"].startswith("copied")
    told = explain(8, 512, 512, dtype=ml_dtypes.bfloat16)
    if told["isa"] == "avx512_bf16":
        assert told["path"].endswith("in pairs")
        told = explain(8, 512, 512, dtype=ml_dtypes.bfloat16, score="cosine", scale=1.0)
        assert "only dot products" in told["path_why"]
    else:
        assert f"{told['isa']} has no bfloat16 products" in told["path_why"]


def test_strided_keys_are_copied():
    q, k = np.zeros((2, 16, 64), np.float32), np.zeros((2, 16, 128), np.float32)[..., ::2]
    assert attnext.explain(q, q, q)["keys"] == "read in place"
    assert attnext.explain(q, k, k)["keys"].startswith("copied")


def test_workspace_grows_with_threads_and_not_with_keys():
    before = attnext.get_num_threads()
    try:
        needed = {}
        for threads in (1, 2):
            attnext.set_num_threads(threads)
            for keys in (2048, 8192):
                needed[threads, keys] = explain(8, 512, keys)["workspace_bytes"]
    finally:
        attnext.set_num_threads(before)
    assert needed[1, 2048] == needed[1, 8192]
    assert needed[1, 2048] < needed[2, 2048] <= 2 * needed[1, 2048]


FORCED = """
import json, numpy, attnext
q = numpy.zeros((1, 1, 9, 8), numpy.float32)
print(json.dumps(attnext.explain(q, q, q)))
"""


def test_forced_instruction_set_names_the_better_one(isa, run_python):
    told = json.loads(run_python(FORCED, ATTNEXT_ISA=isa))
    assert told["isa"] == isa
    best = supported_isas()[0]
    better = "" if isa == best else f"; otherwise {best} would run"
    assert told["why"].startswith(f"ATTNEXT_ISA names it{better}")
