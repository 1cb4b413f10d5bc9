"""Which memory may a result be put into? Any layout whose elements do not overlap."""

import numpy as np
import pytest

import attnext
import c_interface
from refusals import BATCH, DIM_V, HEADS_Q, SEQLEN_Q, base, complain, floats


def test_read_only_out():
    out = floats(BATCH, HEADS_Q, SEQLEN_Q, DIM_V)
    out.flags.writeable = False
    complain(lambda: attnext.attention(**base(), out=out), (ValueError, TypeError), "out")


# Strides in elements, for results of shape (5, 6).
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("strides", [(4, 1), (0, 1), (6, 0), (-5, 1), (1, 4), (3, 3)], ids=str)
def test_out_that_overlaps_itself(strides, backend):
    arguments = {name: x[0, 0] for name, x in base().items()}
    out = strided(np.zeros(200, np.float32), strides)
    complain(lambda: attnext.attention(**arguments, out=out, backend=backend), ValueError, "out")
    assert (out == 0).all()


@pytest.mark.parametrize("strides", [(6, 1), (1, 5), (-6, 1), (7, -1), (13, 2), (1, -8)], ids=str)
def test_out_of_any_layout(strides):
    arguments = {name: x[0, 0] for name, x in base().items()}
    out = strided(np.zeros(200, np.float32), strides)
    assert attnext.attention(**arguments, out=out) is out
    assert np.array_equal(out, attnext.attention(**arguments))


def strided(memory, strides):
    return np.lib.stride_tricks.as_strided(
        memory[memory.size // 2 :], (SEQLEN_Q, DIM_V), [4 * stride for stride in strides]
    )


@pytest.mark.parametrize("strides", [(7, 1), (0, 1), (-1, 1)], ids=str)
@pytest.mark.parametrize("name", ["dq", "dbias"])
def test_gradient_that_overlaps_itself(name, strides):
    """Of the C interface, where callers bring the memory."""
    arrays = dict.fromkeys(("dout", "q", "k", "v", "out"), np.zeros((1, 1, 8, 8), np.float32))
    lse, bias = np.zeros((1, 1, 8), np.float32), np.zeros((8, 8), np.float32)
    gradients = {x: np.zeros((1, 1, 8, 8), np.float32) for x in ("dq", "dk", "dv")}
    gradients["dbias"] = np.zeros((8, 8), np.float32)
    shape = gradients[name].shape
    outer = (0,) * (len(shape) - 2)
    gradients[name] = np.lib.stride_tricks.as_strided(
        np.zeros(200, np.float32)[100:], shape, [4 * x for x in (*outer, *strides)]
    )
    arguments = (*arrays.values(), lse, None, c_interface.Options(bias=bias))
    with pytest.raises(AssertionError, match=f"{name} is written to .* overlap"):
        c_interface.call(
            c_interface.load(), "backward", *arguments, c_interface.Gradients(**gradients)
        )
