"""Do arrays in CUDA memory stay there, ordered by their stream, and are mixed places refused?"""

import contextlib

import numpy as np
import pytest

import attnext
from attnext import libraries
from device_array import DeviceArray, address_of, to_numpy
from draws import normal, problem


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


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-3), ("bfloat16", 1e-2)])
def test_the_gradients_of_options_in_host_memory(arrays, dtype, rtol):
    pytest.importorskip("ml_dtypes")
    host, device = arrays
    options = {"sinks": np.ones(4, dtype), "scale": np.full(4, 0.25, dtype)}
    found, expected = (
        attnext.attention_backward(out, *where, out, lse, backend=backend, **options)
        for where, backend in ((device, "cuda-emulated"), (host, "cpu"))
        for out, lse in [attnext.attention(*where, return_lse=True, backend=backend, **options)]
    )
    for name in ("dsinks", "dscale"):
        ours = getattr(found, name)
        assert isinstance(ours, np.ndarray)
        assert ours.dtype == dtype
        ours, expected_one = (x.astype(np.float32) for x in (ours, getattr(expected, name)))
        np.testing.assert_allclose(ours, expected_one, rtol=rtol, atol=1e-4)


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


@pytest.mark.parametrize("rows", [[4, 1], [8, -9, 2, 2], None], ids=str)
def test_weights_of_rows_in_any_order(arrays, rows):
    host, device = arrays
    options = {"q_lengths": [9, 3], "rows": rows}
    p = attnext.attention_weights(*device[:2], backend="cuda-emulated", **options)
    expected = attnext.attention_weights(*host[:2], **options)
    np.testing.assert_allclose(to_numpy(p, np.float32), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [[6, 1, -7], [0, 6], None], ids=str)
def test_weights_of_packed_sequences(emulated, rows):
    host = [normal(7, 4, 8, dtype=np.float32), normal(12, 2, 8, seed=1, dtype=np.float32)]
    packing = {"layout": "thd", "cu_seqlens_q": [0, 3, 3, 7], "cu_seqlens_k": [0, 5, 5, 12]}
    device = [DeviceArray(x) for x in host]
    p = attnext.attention_weights(*device, rows=rows, backend=emulated, **packing)
    expected = attnext.attention_weights(*host, rows=rows, **packing)
    np.testing.assert_allclose(to_numpy(p, np.float32), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("stream", "asked"), [(0, 1), (1, 1), (2, 2)])
def test_streams_are_numbered_as_the_array_api_says(arrays, monkeypatch, stream, asked):
    _, device = arrays
    monkeypatch.setattr(libraries, "cuda_stream", lambda array: stream)
    attnext.attention(*device, backend="cuda-emulated")
    assert [array.streams for array in device] == [[asked]] * 3


def test_another_stream_goes_to_the_arrays_and_to_the_kernels(arrays, monkeypatch):
    _, device = arrays
    monkeypatch.setattr(libraries, "cuda_stream", lambda array: 0x1234560)
    with pytest.raises(RuntimeError, match="invalid resource handle"):
        attnext.attention(*device, backend="cuda-emulated")
    assert [array.streams for array in device] == [[0x1234560]] * 3


def test_the_arrays_device_is_current_while_they_are_exported(arrays, monkeypatch):
    _, device = arrays
    current = []

    @contextlib.contextmanager
    def current_device(array):
        current.append(array.device)
        yield
        current.pop()

    lend = DeviceArray.__dlpack__

    def export(array, **options):
        assert current == [array.device]
        return lend(array, **options)

    monkeypatch.setattr(libraries, "current_device", current_device)
    monkeypatch.setattr(DeviceArray, "__dlpack__", export)
    attnext.attention(*device, backend="cuda-emulated")
    assert current == []


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_lent_is_given_back_once_all_is_queued(arrays, monkeypatch, fails):
    _, device = arrays
    lent = []

    def namespace(like):  # asked for when results are handed over
        lent.extend(array.lent for array in device)
        raise TypeError

    monkeypatch.setattr(libraries, "namespace", namespace)
    monkeypatch.setenv("ATTNEXT_EMULATOR_FAIL", "launch:2" if fails else "")
    if fails:
        with pytest.raises(RuntimeError, match="failed: "):
            attnext.attention(*device, backend="cuda-emulated")
    else:
        attnext.attention(*device, backend="cuda-emulated")
    assert lent == ([] if fails else [1, 1, 1])
    assert [array.lent for array in device] == [0, 0, 0]


@pytest.mark.parametrize("name", ["k", "out", "mask", "kv_lengths", "dout"])
def test_arrays_of_another_device_are_not_even_asked(arrays, name):
    host, device = arrays
    others = {"k": host[1], "out": host[0], "dout": host[0]}
    others |= {"mask": np.ones((9, 70), bool), "kv_lengths": np.array([3, 4])}
    other = DeviceArray(others[name], device=1)
    expected = f"{name} must be where q is, on cuda:0, found an array in cuda:1"
    q, k, v = device
    arrays = {"q": q, "k": k, "v": v, "backend": "cuda-emulated"}
    run = attnext.attention
    if name == "dout":
        run, arrays = attnext.attention_backward, arrays | {"out": q, "lse": q}
    with pytest.raises(TypeError, match=expected):
        run(**arrays | {name: other})
    assert other.streams == []


def test_gradients_of_options_in_host_memory_are_there(arrays):
    host, device = arrays
    options = {"alibi_slopes": attnext.alibi_slopes(4).astype(np.float32)}
    out, lse = attnext.attention(*host, return_lse=True, **options)
    expected = attnext.attention_backward(out, *host, out, lse, **options)
    made = [DeviceArray(x) for x in (out, lse)]
    grads = attnext.attention_backward(made[0], *device, *made, backend="cuda-emulated", **options)
    assert isinstance(grads.dalibi_slopes, np.ndarray)
    np.testing.assert_allclose(grads.dalibi_slopes, expected.dalibi_slopes, rtol=1e-3, atol=1e-4)


def test_a_result_is_exported_where_it_is_or_copied(arrays):
    _, device = arrays
    out = attnext.attention(*device, backend="cuda-emulated")
    expected = to_numpy(out, np.float32)
    np.testing.assert_array_equal(np.from_dlpack(out, device="cpu"), expected)
    for options in ({"dl_device": (1, 0), "copy": False}, {"dl_device": (2, 1)}):
        with pytest.raises(BufferError, match="exported where it is, or copied"):
            out.__dlpack__(**options)
    exported = {address_of(out.__dlpack__(copy=copy)) for copy in (None, False, None)}
    assert len(exported) == 1
    assert address_of(out.__dlpack__(copy=True)) not in exported
