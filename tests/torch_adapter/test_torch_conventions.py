"""Whose conventions does attnext.torch.attention follow? Attnext's own, pinned by what is seen."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import attnext.torch  # noqa: E402

Q, K = torch.zeros(3, 1), torch.zeros(5, 1)


def visible(**options):
    """Which of 5 keys each of 3 queries sees."""
    return attnext.torch.attention(Q, K, torch.eye(5), **options) > 0


def between(left, right, offset):
    """Keys from i + offset - left to i + offset + right."""
    i, j = torch.arange(3)[:, None], torch.arange(5)
    return (j >= i + offset - left) & (j <= i + offset + right)


@pytest.mark.parametrize(("causal", "offset"), [(True, 2), ("bottom_right", 2), ("top_left", 0)])
def test_causal_corner(causal, offset):
    assert torch.equal(visible(causal=causal), between(9, 0, offset))


def test_a_window_includes_both_its_ends():
    assert torch.equal(visible(window=(1, 0)), between(1, 0, 2))
    assert torch.equal(visible(window=(0, 1)), between(0, 1, 2))
    assert torch.equal(visible(window=(1, None), causal="top_left"), between(1, 0, 0))


def test_mask_true_means_attend():
    mask = torch.from_numpy(np.random.default_rng(0).random((3, 5)) < 0.5)
    assert torch.equal(visible(mask=mask), mask)


def test_a_masked_row_is_zero_and_has_no_gradient():
    q, k, v = (torch.randn(4, 8, requires_grad=True) for _ in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1] = False
    out, lse = attnext.torch.attention(q, k, v, mask=mask, return_lse=True)
    out.sum().backward()
    assert not out[1].any()
    assert torch.isneginf(lse[1])
    assert not q.grad[1].any()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_scale():
    q, k, v = torch.randn(3, 4, 16)
    attend = attnext.torch.attention
    assert torch.equal(attend(q, k, v), attend(q, k, v, scale=0.25))
    assert not torch.allclose(attend(q, k, v), attend(q, k, v, scale=1.0))
