"""Are single gradients those of a whole call on CUDA, and does nothing run for the others?"""

import ml_dtypes
import numpy as np
import pytest

import attnext
from cases import DIFFERENTIABLE
from draws import problem
from test_backward import owners
from test_wanted import ROUNDING, TOGETHER

# Each path through the kernels, each score, each small option, each place where a bias is summed.
NAMES = (
    "plain", "no_keys", "head_dim_256", "kv_lengths", "gqa_everything", "packed_everything",
    "cosine", "neg_l2", "additive_hd_hd", "bias__hqk", "bias_holes_and_sink", "mask_bias_window",
)  # fmt: skip
CASES = [
    (case, dtype)
    for case, dtype in DIFFERENTIABLE
    if str(case) in NAMES and dtype in ("float32", "bfloat16")
]


def gradients(x, backend, **options):
    out, lse = attnext.attention(x.q, x.k, x.v, return_lse=True, backend=backend, **x.options)
    arrays = (x.dout, x.q, x.k, x.v, out, lse)
    options |= x.options
    return attnext.attention_backward(*arrays, dlse=x.dlse, backend=backend, **options)._asdict()


@pytest.mark.parametrize(("case", "dtype"), [pytest.param(*c, id=f"{c[0]}-{c[1]}") for c in CASES])
def test_each_by_itself(case, dtype, emulated):
    x = case.inputs(dtype, attnext.AdditiveScore)
    everything = gradients(x, emulated)
    there = [(name,) for name, owner in owners(x).items() if owner is not None]
    for wanted in [*there, *TOGETHER]:
        for name, found in gradients(x, emulated, wanted=wanted).items():
            if name not in wanted:
                assert found is None, (name, wanted)
                continue
            expected = np.asarray(everything[name], np.float64)
            atol = ROUNDING[dtype] * max(1, np.nanmax(np.abs(expected), initial=0))
            np.testing.assert_allclose(
                np.asarray(found, np.float64), expected, rtol=0, atol=atol, err_msg=f"{wanted}"
            )


def num_launches(run, monkeypatch):
    """How many kernels a call starts: the first launch that cannot be made to fail tells."""
    for number in range(1, 20):
        monkeypatch.setenv("ATTNEXT_EMULATOR_FAIL", f"launch:{number}")
        try:
            run()
        except RuntimeError:
            continue
        finally:
            monkeypatch.delenv("ATTNEXT_EMULATOR_FAIL")
        return number - 1
    raise AssertionError("more than 20 launches")


# With all three: what rows need, dq, and dk with dv by one kernel, or by one each where both do not
# fit the registers.
@pytest.mark.parametrize(
    ("dtype", "dim", "whole", "parts"),
    [
        (np.float32, 16, 4, {"dq": 3, "dk": 3, "dv": 3}),
        (ml_dtypes.bfloat16, 16, 4, {"dq": 3, "dk": 3, "dv": 3}),
        (ml_dtypes.bfloat16, 136, 5, {"dq": 3, "dk": 3, "dv": 3}),
    ],
)
def test_nothing_runs_for_what_nobody_wants(dtype, dim, whole, parts, emulated, monkeypatch):
    arrays = problem(dtype=dtype, dim=dim)
    out, lse = attnext.attention(*arrays, return_lse=True, backend=emulated)

    def launches(*wanted):
        def run():
            options = {"wanted": wanted, "backend": emulated}
            attnext.attention_backward(out, *arrays, out, lse, **options)

        return num_launches(run, monkeypatch)

    assert launches("dq", "dk", "dv") == whole
    assert {name: launches(name) for name in parts} == parts
