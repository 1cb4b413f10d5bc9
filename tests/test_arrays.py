"""Does attention read any array, and give back the caller's own kind?"""

import contextlib

import ml_dtypes
import numpy as np
import pytest

import attnext
from attnext import libraries, reference

SHAPE_Q, SHAPE_K = (2, 4, 9, 16), (2, 2, 13, 16)


def draw(dtype=np.float32):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(dtype) for shape in (SHAPE_Q, SHAPE_K, SHAPE_K)]


def test_read_only_inputs():
    inputs = draw()
    expected = attnext.attention(*inputs)
    for x in inputs:
        x.flags.writeable = False
    copies = [x.copy() for x in inputs]
    assert np.array_equal(attnext.attention(*inputs), expected)
    assert all(np.array_equal(x, copy) for x, copy in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_out(dtype):
    inputs = draw(dtype)
    expected = attnext.attention(*inputs)
    out = np.full(SHAPE_Q, 7, dtype)
    assert attnext.attention(*inputs, out=out) is out
    assert np.array_equal(out, expected)
    result, _ = attnext.attention(*inputs, out=out, return_lse=True)
    assert result is out


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_out_without_rounding(dtype, backend):
    inputs = draw(dtype)
    out = np.full(SHAPE_Q, 7, np.float32)
    assert attnext.attention(*inputs, out=out, backend=backend) is out
    assert np.array_equal(out.astype(dtype), attnext.attention(*inputs, backend=backend))
    wide = attnext.attention(*(x.astype(np.float32) for x in inputs))
    # A bfloat16 matrix unit takes the weights rounded to bfloat16; float16 is computed in float32.
    rounding = 2**-9 if dtype == ml_dtypes.bfloat16 else 0
    assert np.abs(out - wide).max() < 1e-6 + rounding * np.abs(inputs[2].astype(np.float32)).max()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_vjp_keeps_out_without_rounding(dtype):
    """Where one key takes nearly all the weight, the rounding of out is most of a gradient."""
    q, k, v = draw(dtype)
    inputs = [(8 * q).astype(dtype), k, v]
    dout = np.random.default_rng(1).normal(size=SHAPE_Q).astype(dtype)
    out, vjp = attnext.attention_vjp(*inputs)
    expected, lse = attnext.attention(*inputs, return_lse=True)
    assert out.dtype == dtype
    assert np.array_equal(out, expected)
    truth_inputs = [x.astype(np.float64) for x in inputs]
    truth = reference.attention_backward(
        dout.astype(np.float64), *truth_inputs, *reference.attention(*truth_inputs, return_lse=True)
    )

    def errors(grads):
        return [
            np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b)
            for a, b in zip(grads[:2], truth[:2], strict=True)
        ]

    kept = errors(vjp(dout))
    from_rounded = errors(attnext.attention_backward(dout, *inputs, out, lse))
    assert max(kept) < ml_dtypes.finfo(dtype).eps / 2
    assert min(a / b for a, b in zip(from_rounded, kept, strict=True)) > 1.5


@pytest.mark.filterwarnings("error")
def test_vjp_overflows_as_attention_does():
    q, k, v = np.zeros((1, 1)), np.zeros((4, 1)), np.full((4, 1), 65504.0)
    inputs = [x.astype(np.float16) for x in (q, k, v)]
    options = {"dropout": 0.5, "seed": 1}  # keeps all four, each of twice its weight
    assert np.isinf(attnext.attention(*inputs, **options)).all()
    assert np.isinf(attnext.attention_vjp(*inputs, **options)[0]).all()


def test_strided_out_changes_nothing_else():
    inputs = draw()
    storage = np.full((2, 4, 19, 33), 7, np.float32)
    out = storage[:, ::-1, 1::2, 32:0:-2]
    assert out.shape == SHAPE_Q
    attnext.attention(*inputs, out=out)
    assert np.array_equal(out, attnext.attention(*inputs))
    assert (storage == 7).sum() == storage.size - out.size


def test_out_in_the_callers_layout():
    inputs = [np.ascontiguousarray(np.swapaxes(x, 1, 2)) for x in draw()]
    out = np.empty_like(inputs[0])
    attnext.attention(*inputs, out=out, layout="bshd")
    assert np.array_equal(np.swapaxes(out, 1, 2), attnext.attention(*draw()))


def test_ml_dtypes_come_back():
    inputs = draw(ml_dtypes.bfloat16)
    out, lse = attnext.attention(*inputs, return_lse=True)
    grads = attnext.attention_backward(out, *inputs, out, lse)
    assert type(out) is np.ndarray
    assert [x.dtype for x in (out, *grads[:3])] == [np.dtype(ml_dtypes.bfloat16)] * 4
    assert lse.dtype == np.float32


def test_numpy_subclass_and_scalar_options():
    q, k, v = draw()
    expected = attnext.attention(q, k, v, scale=0.5, softcap=2.0, window=(3, 2), q_offset=1)
    found = attnext.attention(
        q,
        k,
        v,
        scale=np.float64(0.5),
        softcap=np.float32(2),
        window=[np.int64(3), np.int32(2)],
        q_offset=np.int64(1),
    )
    assert np.array_equal(found, expected)


class Wrapped:
    """Another library's array: nothing of NumPy's but the protocol."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_anything_with_dlpack(dtype):
    inputs = draw(dtype)
    wrapped = [Wrapped(x) for x in inputs]
    out, lse = attnext.attention(*wrapped, return_lse=True)
    expected, expected_lse = attnext.attention(*inputs, return_lse=True)
    assert type(out) is type(lse) is attnext._core.ResultTensor
    assert np.array_equal(np.from_dlpack(out), expected)
    assert np.array_equal(np.from_dlpack(lse), expected_lse)
    expected_grads = attnext.attention_backward(expected, *inputs, expected, expected_lse)
    _, vjp = attnext.attention_vjp(*wrapped)
    for grads in (attnext.attention_backward(out, *wrapped, out, lse), vjp(out)):
        for a, b in zip(grads[:3], expected_grads[:3], strict=True):
            assert np.array_equal(np.from_dlpack(a), b)


def test_old_dlpack_without_versions():
    class Old:
        """A producer of the time before `max_version`."""

        def __init__(self, x):
            self.x = x

        def __dlpack__(self, stream=None):
            return self.x.__dlpack__()

        def __dlpack_device__(self):
            return self.x.__dlpack_device__()

    inputs = draw()
    found = attnext.attention(*(Old(x) for x in inputs))
    assert np.array_equal(np.from_dlpack(found), attnext.attention(*inputs))


def test_strided_inputs_are_not_copied(run_python):
    """A query over 128 MB of keys and values in another memory order needs next to no memory."""
    code = """
import resource
import numpy as np
import attnext
k, v = (np.ones((1, 65536, 4, 64), np.float32).swapaxes(1, 2) for _ in range(2))
q = np.ones((1, 4, 1, 64), np.float32)
attnext.attention(q, k[:, :, :64], v[:, :, :64])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert abs(attnext.attention(q, k, v) - 1).max() < 1e-5
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    assert int(run_python(code)) <= 8


class TestTorch:
    """PyTorch tensors in, PyTorch tensors out."""

    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    @pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
    def test_round_trip(self, name):
        dtype = getattr(self.torch, name)
        inputs = [self.torch.from_numpy(x).to(dtype) for x in draw()]
        out, lse = attnext.attention(*inputs, return_lse=True, causal=True)
        assert isinstance(out, self.torch.Tensor)
        assert isinstance(lse, self.torch.Tensor)
        assert out.dtype == dtype
        assert lse.dtype == (dtype if name == "float64" else self.torch.float32)
        truth = reference.attention(*(x.double().numpy() for x in inputs), causal=True)
        assert np.abs(out.double().numpy() - truth).max() < {"float64": 1e-12, "float32": 1e-5}.get(
            name, 4e-2
        )
        again, vjp = attnext.attention_vjp(*inputs, causal=True)
        assert self.torch.equal(again, out)
        for grads in (attnext.attention_backward(out, *inputs, out, lse, causal=True), vjp(out)):
            assert [(g.dtype, g.shape) for g in grads[:3]] == [(x.dtype, x.shape) for x in inputs]

    def test_options_may_be_tensors(self):
        q, k, v = draw()
        mask, bias = np.arange(13) > 2, np.linspace(-1, 1, 13, dtype=np.float32)
        inputs = [self.torch.from_numpy(x) for x in (q, k, v)]
        found = attnext.attention(
            *inputs, mask=self.torch.from_numpy(mask), bias=self.torch.from_numpy(bias)
        )
        assert np.array_equal(found.numpy(), attnext.attention(q, k, v, mask=mask, bias=bias))

    def test_transposed_is_read_in_place(self):
        inputs = [self.torch.from_numpy(x) for x in draw()]
        expected = attnext.attention(*inputs)
        turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
        assert self.torch.equal(attnext.attention(*turned), expected)

    def test_requires_grad_is_refused(self):
        q, k, v = (self.torch.from_numpy(x) for x in draw())
        with pytest.raises(TypeError, match=r"attnext\.torch"):
            attnext.attention(q.requires_grad_(), k, v)

    def test_mixed_libraries_are_refused(self):
        q, k, v = draw()
        with pytest.raises(TypeError, match=r"\bk\b"):
            attnext.attention(q, self.torch.from_numpy(k), v)

    def test_out_is_filled(self):
        inputs = [self.torch.from_numpy(x) for x in draw()]
        out = self.torch.empty(SHAPE_Q)
        assert attnext.attention(*inputs, out=out) is out
        assert self.torch.equal(out, attnext.attention(*inputs))


class TestJax:
    """JAX arrays in, JAX arrays out."""

    @pytest.fixture(autouse=True)
    def jax(self):
        self.jax = pytest.importorskip("jax")

    @pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
    def test_round_trip(self, name):
        inputs = [self.jax.numpy.asarray(x, dtype=name) for x in draw()]
        out, lse = attnext.attention(*inputs, return_lse=True)
        assert isinstance(out, self.jax.Array)
        assert isinstance(lse, self.jax.Array)
        assert (out.dtype.name, lse.dtype.name) == (name, "float32")
        assert self.jax.numpy.array_equal(attnext.attention_vjp(*inputs)[0], out)
        truth = reference.attention(*(np.asarray(x, np.float64) for x in inputs))
        assert np.abs(np.asarray(out, np.float64) - truth).max() < (
            1e-5 if name == "float32" else 4e-2
        )

    def test_immutable_out_is_refused(self):
        inputs = [self.jax.numpy.asarray(x) for x in draw()]
        with pytest.raises(TypeError, match=r"\bout\b"):
            attnext.attention(*inputs, out=self.jax.numpy.zeros(SHAPE_Q))


def test_reference_backend_agrees():
    inputs = draw()
    found = attnext.attention(*inputs, causal=True, backend="reference")
    assert found.dtype == np.float32
    assert np.abs(found - attnext.attention(*inputs, causal=True)).max() < 1e-5
    assert np.array_equal(
        attnext.attention(*inputs, causal=True, backend="cpu"),
        attnext.attention(*inputs, causal=True),
    )


def one_element_further(x):
    """The same numbers, rows side by side, at an address that is no multiple of a vector."""
    room = np.empty(x.nbytes + 128, np.uint8)
    begin = -room.ctypes.data % 64 + x.itemsize
    moved = room[begin : begin + x.nbytes].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("score", ["dot", "neg_l2", "cosine", "additive"])
def test_gradients_at_any_address(score, dtype):
    rng = np.random.default_rng(0)
    q, k, v, dout = (rng.normal(size=(1, 2, 70, 64)).astype(dtype) for _ in range(4))
    weight = attnext.AdditiveScore(rng.normal(size=64).astype(dtype))
    options = {"score": weight} if score == "additive" else {"score": score, "scale": 0.2}
    out, lse = attnext.attention(q, k, v, return_lse=True, **options)
    expected = attnext.attention_backward(dout, q, k, v, out, lse, **options)
    moved = [one_element_further(x) for x in (dout, q, k, v, out)]
    grads = attnext.attention_backward(*moved, lse, **options)
    for grad, wanted in zip(grads, expected, strict=True):
        assert (grad is None) == (wanted is None)
        assert grad is None or np.array_equal(grad, wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_memory_beside_an_array_of_another_dtype(dtype, monkeypatch):
    """That a CUDA array's library gives for the gradients of options; here on the CPU."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(libraries, "current_device", lambda array: contextlib.nullcontext())
    made = libraries.empty_beside(torch.zeros(2, dtype=torch.bfloat16), (3, 4), dtype)
    assert (made.dtype, made.shape) == (getattr(torch, dtype), (3, 4))
