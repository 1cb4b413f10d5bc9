"""Does each CUDA kernel get each case of the grid right? Its own source runs, on the CPU."""

import dataclasses

import numpy as np
import pytest

import attnext
from attnext import reference
from cases import DIFFERENTIABLE, EVERY
from test_backward import owners
from test_forward import core
from tolerance import WIDER, check, error

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


# Orders in which the naive formula sums over head_dim: its error where a soft cap is a hundredth of
# the scores varies fourfold with them, and a single one may be spared.
ORDERS = 8


def unlucky(pass_, q, k, truth):
    """What ``pass_(q, k)`` yields by name, each of the order that errs most."""
    worst = {}
    for seed in range(ORDERS):
        order = np.random.default_rng(seed).permutation(q.shape[-1])
        naive = pass_(*(np.ascontiguousarray(x[..., order]) for x in (q, k)))
        for name in naive.keys() & {"dq", "dk"}:
            naive[name] = naive[name][..., np.argsort(order)]
        for name, result in naive.items():
            if result is not None and truth[name] is not None:
                found = error(result, truth[name]), result
                worst[name] = max(worst.get(name, found), found, key=lambda pair: pair[0])
    return {name: result for name, (_, result) in worst.items()}


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


def gradients(library, x, q, k, **where):
    out, lse = library.attention(q, k, x.v, return_lse=True, **where, **x.options)
    arrays = (x.dout, q, k, x.v, out, lse)
    grads = library.attention_backward(*arrays, dlse=x.dlse, **where, **x.options)
    return {"lse": lse, **grads._asdict()}


def check_gradients(x, results, truth, naive):
    for name, owner in owners(x).items():
        if owner is None:
            assert results[name] is None, f"{name} belongs to nothing"
            continue
        assert results[name].dtype == owner.dtype
        check(name, results[name], truth[name], naive[name], x, lse=truth["lse"])


@named(DIFFERENTIABLE)
def test_backward(case, dtype, backend):
    x = case.inputs(dtype, attnext.AdditiveScore)
    results = gradients(attnext, x, x.q, x.k, backend=backend)
    truth, naive = references(lambda wide: gradients(reference, x, x.q, x.k, dtype=wide), x, dtype)
    check_gradients(x, results, truth, naive)


@by_three_products(DIFFERENTIABLE)
def test_fast_backward(case, backend, fast):
    x = case.inputs("float32", attnext.AdditiveScore)
    results = gradients(attnext, x, x.q, x.k, backend=backend)
    truth = gradients(reference, x, x.q, x.k, dtype=np.float64)

    def naively(q, k):
        return gradients(reference, x, q, k, dtype=np.float32)

    has_softcap = "softcap" in x.options
    naive = unlucky(naively, x.q, x.k, truth) if has_softcap else naively(x.q, x.k)
    check_gradients(x, results, truth, naive)
