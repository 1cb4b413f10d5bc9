"""Do arrays in CUDA memory stay there, ordered by their stream, and are mixed places refused?"""

import numpy as np
import pytest

import attnext
from device_array import DeviceArray, to_numpy
from draws import problem


@pytest.fixture
def arrays(emulated):
    host = problem(dtype=np.float32)
    return host, [DeviceArray(x) for x in host]


def test_forward_and_backward_where_the_arrays_are(arrays):
    host, device = arrays
    options = {"causal": True, "backend": "cuda-emulated"}
    out, lse = attnext.attention(*device, return_lse=True, **options)
    expected, expected_lse = attnext.attention(*host, causal=True, return_lse=True)
    np.testing.assert_allclose(to_numpy(out, np.float32), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_numpy(lse, np.float32), expected_lse, rtol=1e-5, atol=1e-5)
    grads = attnext.attention_backward(out, *device, out, lse, **options)
    truth = attnext.attention_backward(expected, *host, expected, expected_lse, causal=True)
    for name in ("dq", "dk", "dv"):
        ours = to_numpy(getattr(grads, name), np.float32)
        np.testing.assert_allclose(ours, getattr(truth, name), rtol=1e-3, atol=1e-4)


def test_the_stream_is_the_legacy_default_of_a_library_without_one(arrays):
    _, device = arrays
    attnext.attention(*device, backend="cuda-emulated")
    assert {stream for array in device for stream in array.streams} == {1}


def test_small_options_in_host_memory(arrays):
    host, device = arrays
    options = {"kv_lengths": [30, 70], "alibi_slopes": attnext.alibi_slopes(4)}
    out = attnext.attention(*device, backend="cuda-emulated", **options)
    expected = attnext.attention(*host, **options)
    np.testing.assert_allclose(to_numpy(out, np.float32), expected, rtol=1e-4, atol=1e-5)


def test_the_gradients_of_options_in_host_memory(arrays):
    host, device = arrays
    options = {"sinks": np.ones(4, np.float32), "scale": np.full(4, 0.2, np.float32)}
    found, expected = (
        attnext.attention_backward(out, *where, out, lse, backend=backend, **options)
        for where, backend in ((device, "cuda-emulated"), (host, "cpu"))
        for out, lse in [attnext.attention(*where, return_lse=True, backend=backend, **options)]
    )
    for name in ("dsinks", "dscale"):
        ours = getattr(found, name)
        assert isinstance(ours, np.ndarray)
        np.testing.assert_allclose(ours, getattr(expected, name), rtol=1e-3, atol=1e-4)


def test_numpy_takes_a_copy(arrays):
    _, device = arrays
    out = attnext.attention(*device, backend="cuda-emulated")
    np.testing.assert_array_equal(np.from_dlpack(out, device="cpu"), to_numpy(out, np.float32))


def test_weights_statistics_and_merging(arrays):
    host, device = arrays
    p = attnext.attention_weights(*device[:2], rows=[1, 4], backend="cuda-emulated")
    expected = attnext.attention_weights(*host[:2], rows=[1, 4])
    np.testing.assert_allclose(to_numpy(p, np.float32), expected, rtol=1e-4, atol=1e-6)
    entropy = attnext.attention_stats(*device[:2], backend="cuda-emulated").entropy
    np.testing.assert_allclose(
        to_numpy(entropy, np.float32), attnext.attention_stats(*host[:2]).entropy, rtol=1e-4
    )
    parts = [attnext.attention(*device, return_lse=True, backend="cuda-emulated")] * 2
    out, _ = attnext.merge_attention(*zip(*parts, strict=True), backend="cuda-emulated")
    np.testing.assert_allclose(
        to_numpy(out, np.float32), attnext.attention(*host), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("place", [0, 1])
def test_mixed_places_are_refused_by_name(arrays, place):
    host, device = arrays
    mixed = list(device)
    mixed[1 + place] = DeviceArray(host[1 + place], device=1)
    name = "kv"[place]
    expected = f"^attention: {name} must be where q is, on cuda:0, found an array in cuda:1"
    with pytest.raises(TypeError, match=expected):
        attnext.attention(*mixed, backend="cuda-emulated")
    assert mixed[1 + place].streams == []  # of a stream of cuda:0 its library may know nothing


def test_a_mask_must_be_where_q_is(arrays):
    _, device = arrays
    expected = "^attention: mask must be where q is, on cuda:0, found a NumPy array in host memory"
    with pytest.raises(TypeError, match=expected):
        attnext.attention(*device, mask=np.ones((9, 70), bool), backend="cuda-emulated")


def test_a_device_array_beside_host_arrays(arrays):
    host, device = arrays
    with pytest.raises(TypeError, match=r"^attention: k must be "):
        attnext.attention(host[0], device[1], host[2])


def test_the_cpu_refuses_cuda_memory(arrays):
    _, device = arrays
    expected = "^attention: backend 'cpu' computes in host memory, found q on cuda:0"
    with pytest.raises(TypeError, match=expected):
        attnext.attention(*device, backend="cpu")


def test_cuda_arrays_say_why_there_is_no_back_end(arrays):
    _, device = arrays
    if next(b for b in attnext.backends() if b.name == "cuda").available:
        pytest.skip("there is a CUDA back end")
    with pytest.raises(RuntimeError, match=r"^attention: "):
        attnext.attention(*device)


def test_what_is_put_together_on_the_host_is_refused(arrays):
    _, device = arrays
    with pytest.raises(NotImplementedError, match="rows must not decrease"):
        attnext.attention_weights(*device[:2], rows=[4, 1], backend="cuda-emulated")
