"""Is float32 multiplied exactly unless asked otherwise, and nearly as well if so?"""

from types import SimpleNamespace

import numpy as np
import pytest

import attnext
from attnext import reference
from both_passes import check_all, passes

SHAPE = (2, 65, 64)


def plain(rng):
    return rng.normal(size=(3, *SHAPE))


def wide(rng):
    """Elements of q and k from 1e-6 to 1e6, their products around 1."""
    powers = 10 ** rng.uniform(-6, 6, SHAPE[-1])
    q, k, v = plain(rng)
    return q * powers, k / powers, v


def cancelling(rng):
    """Products a hundred times their sum, and values far from 0."""
    q, k, v = plain(rng)
    q[..., 1::2], k[..., 1::2] = 0.01 * q[..., 1::2] - q[..., ::2], k[..., ::2]
    return 10 * q, k, v + 100


def saturated(rng):
    """Scores up to 80: most rows attend one key."""
    q, k, v = plain(rng)
    return 10 * q, 2 * k, v


def near_ties(rng):
    """Keys that differ in digits tf32 does not have, and queries long enough to tell them apart."""
    q, k, v = plain(rng)
    return 30 * q, 1 + 3e-4 * k, v


def tiny(rng):
    """Values whose lower parts lie below the normal range of float32."""
    q, k, v = plain(rng)
    return q, k, 1e-36 * v


def drawn(draw):
    rng = np.random.default_rng(7)
    q, k, v = (x.astype(np.float32) for x in draw(rng))
    dout, dlse = (rng.normal(size=s).astype(np.float32) for s in (SHAPE, SHAPE[:-1]))
    return SimpleNamespace(q=q, k=k, v=v, dout=dout, dlse=dlse, options={"causal": True})


def explained(x, backend):
    return attnext.explain(x.q, x.k, x.v, backend=backend, **x.options)


def as_tf32(x):
    return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)


@pytest.mark.parametrize("draw", [plain, wide, cancelling, saturated, near_ties, tiny])
def test_adversarial_data(draw, backend, fast):
    x = drawn(draw)
    assert "tf32" in explained(x, backend)["instruction"]
    check_all(passes(attnext, x, backend=backend), x)


def test_a_single_product_would_not_pass():
    x = drawn(plain)
    rounded = SimpleNamespace(**vars(x) | {name: as_tf32(getattr(x, name)) for name in "qkv"})
    with pytest.raises(AssertionError, match="earned"):
        check_all(passes(reference, rounded, dtype=np.float32), x)


def test_same_bits_again(backend, fast):
    x = drawn(plain)
    first, second = (passes(attnext, x, backend=backend) for _ in range(2))
    for name, result in first.items():
        np.testing.assert_array_equal(result, second[name], err_msg=name)


def test_exact_is_the_default(backend):
    assert attnext.get_float32_precision() == "exact"
    found = explained(drawn(plain), backend)
    assert found["path"] == "simt"
    assert found["why"] == "q is float32, and set_float32_precision says exact"


@pytest.mark.parametrize(
    ("dtype", "score", "why"),
    [
        ("float64", "dot", "q is float64"),
        ("float32", "neg_sq_l2", "score is not dot or cosine"),
        ("float16", "dot", "16-bit matrix instructions"),
    ],
)
def test_what_it_does_not_change(dtype, score, why, backend, fast):
    x = drawn(plain)
    q, k, v = (array.astype(dtype) for array in (x.q, x.k, x.v))
    assert attnext.explain(q, k, v, score=score, backend=backend)["why"] == why


def test_the_cpu_is_always_exact(fast):
    x = drawn(plain)
    bits = passes(attnext, x)["out"]
    attnext.set_float32_precision("exact")
    np.testing.assert_array_equal(bits, passes(attnext, x)["out"])


@pytest.mark.parametrize("precision", ["tf32", "", None, 1])
def test_another_word_is_refused(precision):
    with pytest.raises(ValueError, match="set_float32_precision: precision must be 'exact' or"):
        attnext.set_float32_precision(precision)
    assert attnext.get_float32_precision() == "exact"
