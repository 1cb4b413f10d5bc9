"""Does each CUDA kernel get each case of the grid right? Its own source runs, on the CPU."""

import dataclasses

import pytest

import attnext
from attnext import reference
from cases import DIFFERENTIABLE, EVERY
from test_backward import owners
from test_forward import core
from tolerance import WIDER, check

# An emulated multiply-add takes about a microsecond. So many keys are still several tiles, and
# several parts of a sequence whose keys are split.
MOST_QUERIES, MOST_KEYS = 300, 1100

# Every case by each path through the kernels (FFMA, matrix units); core cases in the other dtypes.
WHOLE = ("float32", "bfloat16")


def smaller(case):
    """The case with fewer rows where it has many."""
    queries, keys = case.seqlens
    return dataclasses.replace(case, seqlens=(min(queries, MOST_QUERIES), min(keys, MOST_KEYS)))


def named(pairs):
    chosen = [(smaller(case), dtype) for case, dtype in pairs if case.is_core or dtype in WHOLE]
    return pytest.mark.parametrize(("case", "dtype"), core(chosen))


def by_three_products(pairs):
    """The cases that matrix units multiply in float32."""
    chosen = [
        smaller(case)
        for case, dtype in pairs
        if dtype == "float32" and case.options.get("score", "dot") in ("dot", "cosine")
    ]
    return pytest.mark.parametrize("case", chosen, ids=str)


def references(pass_, x, dtype):
    """The pass in more digits, and naively in the dtype of the inputs."""
    return pass_(WIDER[dtype]), pass_(x.q.dtype)


@named(EVERY)
def test_forward(case, dtype, backend):
    x = case.inputs(dtype, attnext.AdditiveScore)
    arrays, options = (x.q, x.k, x.v), x.options
    results = attnext.attention(*arrays, return_lse=True, backend=backend, **options)
    truth, naive = references(
        lambda wide: reference.attention(*arrays, return_lse=True, dtype=wide, **options), x, dtype
    )
    assert results[0].dtype == x.q.dtype
    for name, *tensors in zip(("out", "lse"), results, truth, naive, strict=True):
        check(name, *tensors, x, lse=truth[1])


@by_three_products(EVERY)
def test_fast_forward(case, backend, fast):
    test_forward(case, "float32", backend)


@named(DIFFERENTIABLE)
def test_backward(case, dtype, backend):
    x = case.inputs(dtype, attnext.AdditiveScore)

    def gradients(library, **where):
        out, lse = library.attention(x.q, x.k, x.v, return_lse=True, **where, **x.options)
        arrays = (x.dout, x.q, x.k, x.v, out, lse)
        grads = library.attention_backward(*arrays, dlse=x.dlse, **where, **x.options)
        return {"lse": lse, **grads._asdict()}

    results = gradients(attnext, backend=backend)
    truth, naive = references(lambda wide: gradients(reference, dtype=wide), x, dtype)
    for name, owner in owners(x).items():
        if owner is None:
            assert results[name] is None, f"{name} belongs to nothing"
            continue
        assert results[name].dtype == owner.dtype
        check(name, results[name], truth[name], naive[name], x, lse=truth["lse"])


@by_three_products(DIFFERENTIABLE)
def test_fast_backward(case, backend, fast):
    test_backward(case, "float32", backend)
