"""Are the position functions what their papers say?"""

import ml_dtypes
import numpy as np
import pytest

import attnext
from draws import normal, problem


def test_sinusoidal_positions():
    """Vaswani et al., 2017: sin and cos of position / 10000^(2i / dim), interleaved."""
    table = np.asarray(attnext.sinusoidal_positions(50, 12))
    assert table.shape == (50, 12)
    position, i = np.arange(50)[:, None], np.arange(6)
    angle = position / 10000.0 ** (2 * i / 12)
    assert np.allclose(table[:, 0::2], np.sin(angle), atol=1e-6)
    assert np.allclose(table[:, 1::2], np.cos(angle), atol=1e-6)


def test_rotary_is_a_rotation_that_knows_the_distance_only():
    x = normal(1, 2, 10, 8)
    turned = attnext.rotary(x, np.arange(10))
    assert np.allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1))
    assert np.allclose(turned[:, :, 0], x[:, :, 0])
    same = np.broadcast_to(x[:, :, :1], x.shape)
    one, later = attnext.rotary(same, np.arange(10)), attnext.rotary(same, np.arange(10) + 5)
    products = [np.einsum("bhid,bhjd->bhij", y, y) for y in (one, later)]
    assert np.allclose(products[0], products[1])
    assert np.ptp(products[0]) > 0.1


def test_rotary_backward_is_its_transpose():
    x, dy = normal(1, 2, 10, 8), normal(1, 2, 10, 8, seed=1)
    positions = np.arange(10) * 3
    assert (attnext.rotary(x, positions) * dy).sum() == pytest.approx(
        (x * attnext.rotary_backward(dy, positions)).sum()
    )


@pytest.mark.parametrize("num_heads", [1, 2, 8, 16])
def test_alibi_slopes_of_a_power_of_two(num_heads):
    """Press et al., 2022: a geometric sequence, first term and ratio 2^(-8 / heads)."""
    expected = 2.0 ** (-8 / num_heads * np.arange(1, num_heads + 1))
    assert np.allclose(attnext.alibi_slopes(num_heads), expected)


def test_alibi_slopes_of_other_counts():
    """The closest power of two below, then every other one of twice as many heads."""
    expected = [*(2.0 ** -np.arange(1, 9)), *(2.0 ** (-0.5 * np.array([1, 3, 5, 7])))]
    assert np.allclose(attnext.alibi_slopes(12), expected)


def test_alibi_is_the_bias_it_says():
    q, k, v = problem(9, 13)
    slopes = np.asarray(attnext.alibi_slopes(4), np.float64)
    distance = np.abs(np.arange(9)[:, None] + 4 - np.arange(13))
    found = attnext.attention(q, k, v, alibi_slopes=slopes)
    assert np.allclose(
        found,
        attnext.attention(q, k, v, bias=-slopes[:, None, None] * distance),
        rtol=0,
        atol=1e-13,
    )


@pytest.mark.parametrize("count", [np.array(3), np.int8(3)], ids=["array", "int8"])
def test_counts_may_be_any_integer(count):
    assert np.array_equal(attnext.alibi_slopes(count), attnext.alibi_slopes(3))
    table = attnext.sinusoidal_positions(count, count)
    assert np.array_equal(table, attnext.sinusoidal_positions(3, 3))


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float16, ml_dtypes.bfloat16])
def test_rotary_at_positions_of_any_type(dtype):
    x = normal(1, 2, 5, 8)
    found = attnext.rotary(x, np.arange(5).astype(dtype))
    assert np.array_equal(found, attnext.rotary(x, [0, 1, 2, 3, 4]))


X = normal(1, 2, 5, 8)
WRONG_ROTATIONS = {
    "text positions": (TypeError, "positions", X, ["a"] * 5, {}),
    "complex positions": (TypeError, "positions", X, 1j * np.arange(5), {}),
    "no positions": (TypeError, "positions", X, None, {}),
    "ragged positions": (TypeError, "positions", X, [[1], [1, 2]], {}),
    "too few positions": (ValueError, "positions", X, range(4), {}),
    "text theta": (TypeError, "theta", X, range(5), {"theta": "x"}),
    "complex theta": (TypeError, "theta", X, range(5), {"theta": 1j}),
    "array theta": (TypeError, "theta", X, range(5), {"theta": np.ones(4)}),
    "theta 0": (ValueError, "theta", X, range(5), {"theta": 0}),
    "negative theta": (ValueError, "theta", X, range(5), {"theta": -1e4}),
    "infinite theta": (ValueError, "theta", X, range(5), {"theta": np.inf}),
    "NaN theta": (ValueError, "theta", X, range(5), {"theta": np.nan}),
    "unknown layout": (ValueError, "layout", X, range(5), {"layout": "sbh"}),
    "odd dim": (ValueError, "{x}", X[..., :7], range(5), {}),
    "float8": (TypeError, "{x}", X.astype(ml_dtypes.float8_e4m3fn), range(5), {}),
    "long double": (TypeError, "{x}", X.astype(np.longdouble), range(5), {}),
    "integers": (TypeError, "{x}", X.astype(int), range(5), {}),
    "list": (TypeError, "{x}", [[1.0, 2.0]], [0], {}),
}


@pytest.mark.parametrize("name", WRONG_ROTATIONS)
@pytest.mark.parametrize("function", [attnext.rotary, attnext.rotary_backward])
def test_rotary_refuses(function, name):
    error, argument, x, positions, options = WRONG_ROTATIONS[name]
    argument = argument.format(x="x" if function is attnext.rotary else "dout")
    with pytest.raises(error, match=f"^{function.__name__}: {argument} must"):
        function(x, positions, **options)


def test_rotary_refuses_what_torch_cannot_hand_over():
    torch = pytest.importorskip("torch")
    x = torch.tensor(X)
    for positions in (torch.arange(5.0).requires_grad_(), torch.arange(5, device="meta")):
        with pytest.raises(TypeError, match=r"^rotary: positions must"):
            attnext.rotary(x, positions)
    with pytest.raises(TypeError, match=r"^rotary: x requires grad"):
        attnext.rotary(x.requires_grad_(), range(5))
