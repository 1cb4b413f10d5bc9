"""Do arrays of PyTorch, CuPy and JAX give what NumPy's give, in the order of their streams?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import attnext

from . import common, problems
from .libraries import LIBRARIES, Emulated
from .worker import Row, Skipped

PROBLEM = {"seqlen": 129, "dim": 64, "causal": True, "group": 2, "options": "plain"}
REPEATS = 20  # of what only a race would spoil

Calls = dict[str, Any]


def open_library(name: str, backend: str) -> Any:
    """The library, if its arrays can be in the memory of the back end."""
    if (name == "emulated") != (backend == "cuda-emulated"):
        raise Skipped(f"arrays of {name} are never in the memory of {backend}")
    return Emulated() if name == "emulated" else LIBRARIES[name]()


def drawn(name: str, dtype: str, **change: Any) -> Any:
    """A problem in a type that the library has."""
    if dtype == "bfloat16" and name == "cupy":
        raise Skipped("cupy has no bfloat16 that NumPy shares")
    if dtype != "float32" and name == "emulated":
        raise Skipped("the emulator's arrays are float32 here")
    smaller = {"seqlen": 33} if name == "emulated" else {}
    return problems.make({**PROBLEM, "dtype": dtype, **smaller, **change})


def tensors(x: Any, place: Callable[[Any], Any]) -> list[Any]:
    """q, k, v, dout, each put somewhere."""
    return [place(array) for array in (x.q, x.k, x.v, x.dout)]


def passes(arrays: list[Any], options: Calls, backend: str | None) -> dict[str, Any]:
    """Every pass over q, k, v, dout; the results by name."""
    q, k, v, dout = arrays
    where = {"backend": backend, **options}
    out, lse = attnext.attention(q, k, v, return_lse=True, **where)
    grads = attnext.attention_backward(dout, q, k, v, out, lse, **where)
    result = {"out": out, "lse": lse, **grads._asdict()}
    looking = {name: value for name, value in where.items() if name not in ("dropout", "seed")}
    result["p"] = attnext.attention_weights(q, k, **looking)
    result["entropy"] = attnext.attention_stats(q, k, **looking).entropy
    result["merged"] = attnext.merge_attention([out, out], [lse, lse], backend=backend)[0]
    return {name: value for name, value in result.items() if value is not None}


def require_same(library: Any, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise unless each result is of the library and has the bytes of NumPy's."""
    for name, theirs in expected.items():
        ours = found[name]
        host = isinstance(ours, np.ndarray)  # the gradient of an option given in host memory
        if not host and not library.is_ours(ours):
            raise AssertionError(f"{name} is {type(ours)}, not the caller's, or elsewhere")
        found_bytes = ours.view(np.uint8) if host else library.host(ours)
        expected_bytes = np.ascontiguousarray(theirs).view(np.uint8)
        if found_bytes.ravel().tobytes() != expected_bytes.ravel().tobytes():
            raise AssertionError(f"{name} has other bytes than with NumPy's arrays")


def default_backend(backend: str) -> str | None:
    """What a caller would say: nothing, where the arrays' place names the back end."""
    return None if backend == "cuda" else backend


def same_as_staged(name: str, backend: str, dtype: str) -> Row:
    """Every pass with every option, the large ones on the device, small ones here or there."""
    library = open_library(name, backend)
    x = drawn(name, dtype, options="everything")
    expected = passes(tensors(x, np.asarray), x.options, backend)
    large = {
        key: library.array(value) for key, value in x.options.items() if key in ("mask", "bias")
    }
    arrays, where = tensors(x, library.array), default_backend(backend)
    require_same(library, passes(arrays, {**x.options, **large}, where), expected)
    if name == "emulated":
        return {}
    small = {
        key: library.array(value) for key, value in x.options.items()
        if isinstance(value, np.ndarray)
    }  # fmt: skip
    require_same(library, passes(arrays, {**x.options, **small}, where), expected)
    return {}


def late_input(name: str, backend: str, dtype: str) -> Row:
    """Inputs that a long kernel of the same side stream is still to write."""
    library, x = open_library(name, backend), drawn(name, dtype)
    expected = passes(tensors(x, np.asarray), x.options, backend)
    for _ in range(3):
        with library.side_stream():
            found = passes(tensors(x, library.late), x.options, default_backend(backend))
            require_same(library, found, expected)
    return {}


def two_streams(name: str, backend: str, dtype: str) -> Row:
    """Calls that overlap on two streams, whose workspaces come and go."""
    library = open_library(name, backend)
    if name == "emulated":
        raise Skipped("the emulator does one thing after another")
    problem = [drawn(name, dtype, seqlen=seqlen) for seqlen in (129, 300)]
    expected = [passes(tensors(x, np.asarray), x.options, backend) for x in problem]
    arrays = [tensors(x, library.array) for x in problem]
    library.wait()
    streams, found = [library.side_stream() for _ in problem], []
    for _ in range(REPEATS):
        for i, stream in enumerate(streams):
            with stream:
                found.append((i, passes(arrays[i], problem[i].options, default_backend(backend))))
    library.wait()
    for i, results in found:
        require_same(library, results, expected[i])
    return {"calls": len(found)}


def two_devices(name: str, backend: str, dtype: str) -> Row:
    """Keys on another device than the queries are refused; each device by itself works."""
    library, x = open_library(name, backend), drawn(name, dtype)
    if library.num_devices() < 2:
        raise Skipped("there is one device")
    q, k, v = library.array(x.q), library.array(x.k, 1), library.array(x.v)
    try:
        attnext.attention(q, k, v, backend=default_backend(backend))
    except TypeError as error:
        if "cuda:1" not in str(error):
            raise AssertionError(f"the refusal does not say where k is: {error}") from None
    else:
        raise AssertionError("a key array on another device was taken")
    if name == "emulated":
        return {}  # whose second device is a name only
    expected = attnext.attention(x.q, x.k, x.v, backend=backend)
    found = attnext.attention(*(library.array(array, 1) for array in (x.q, x.k, x.v)))
    if not library.is_ours(found, 1) or library.host(found).tobytes() != expected.tobytes():
        raise AssertionError("the second device gives another result")
    return {}


def autograd(name: str, backend: str, dtype: str) -> Row:
    """`attnext.torch` and its gradients, on a side stream."""
    library, x = open_library(name, backend), drawn(name, dtype)
    import attnext.torch

    expected = passes(tensors(x, np.asarray), x.options, backend)
    with library.side_stream():
        q, k, v, dout = tensors(x, library.late)
        leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
        out = attnext.torch.attention(*leaves, causal=True)
        out.backward(dout)
        found = {"out": out, **{f"d{n}": leaf.grad for n, leaf in zip("qkv", leaves)}}
        for key, value in found.items():
            ours = library.host(value).view(x.q.dtype).astype(float).reshape(value.shape)
            theirs = expected[key].astype(float)
            # Its backward may keep an out of more digits.
            np.testing.assert_allclose(ours, theirs, rtol=2e-2, atol=2e-2, err_msg=key)
    return {}


def graph(name: str, backend: str, dtype: str) -> Row:
    """Whether torch captures a call into a CUDA graph; if so, its replays must be right."""
    library, x = open_library(name, backend), drawn(name, dtype)
    torch, found = library.torch, {}
    arrays = [library.array(array) for array in (x.q, x.k, x.v)]
    other = [array[::-1].copy() for array in (x.q, x.k, x.v)]
    options = {"plain": {}, "slopes": {"alibi_slopes": attnext.alibi_slopes(x.q.shape[1])}}
    for kind, chosen in options.items():
        call = lambda arrays, chosen=chosen: attnext.attention(*arrays, causal=True, **chosen)  # noqa: E731
        call(arrays)
        library.wait()
        recorded = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(recorded):
                out = call(arrays)
        except RuntimeError as error:
            # A broken capture may leave the device unusable to this process.
            return {**found, kind: f"refused: {str(error)[:300]}", "ends": True}
        for tensor, array in zip(arrays, other):
            tensor.copy_(library.array(array))
        recorded.replay()
        library.wait()
        require_same(library, {"out": out}, {"out": attnext.attention(
            *other, causal=True, backend=backend, **chosen)})  # fmt: skip
        found[kind] = "captured, and replayed right"
    return found


CHECKS = {
    "staged": same_as_staged, "late": late_input, "streams": two_streams, "devices": two_devices,
    "autograd": autograd, "graph": graph,
}  # fmt: skip


def grid() -> dict[str, dict[str, str]]:
    """Names and cases; those that may break the device come last."""
    names = [*LIBRARIES, "emulated"]
    cases = [
        (library, check, dtype)
        for check in CHECKS
        for dtype in ("float16", "float32", "bfloat16")
        for library in (["torch"] if check in ("autograd", "graph") else names)
    ]
    return {
        f"{library}-{check}-{dtype}": {"library": library, "check": check, "dtype": dtype}
        for library, check, dtype in cases
    }


def run_case(backend: str, case: dict[str, str]) -> Row:
    """One check of one library."""
    return CHECKS[case["check"]](case["library"], backend, case["dtype"])


def main(arguments: list[str]) -> int:
    """``python -m benchmarks.gpu.arrays``."""
    chosen = common.parser(__doc__, limit=60).parse_args(arguments)
    cases = common.select(grid(), chosen)
    return common.run_in_workers("benchmarks.gpu.arrays", cases, chosen)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
