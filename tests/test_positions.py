"""Are the position functions what their papers say?"""

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
