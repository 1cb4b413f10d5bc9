"""How alike are a query and a key? The five scores, each with its gradient.

All take q (H, Sq, D) and k (H, Sk, D). `value` gives f (H, Sq, Sk); `gradient` takes df, the
gradient of f, and gives those of q and k, then those of what the score has learned.
"""

import numpy as np

_SMALLEST_NORM = 1e-12


def _transpose(x):
    return np.swapaxes(x, -1, -2)


class Dot:
    """The product q . k."""

    def value(self, q, k):
        return q @ _transpose(k)

    def gradient(self, df, q, k):
        return df @ k, _transpose(df) @ q


class Cosine:
    """The product of directions, q . k / (|q| |k|); of a zero vector 0, with gradient 0."""

    def _unit(self, x):
        norm = np.sqrt((x * x).sum(-1, keepdims=True))
        return x / np.maximum(norm, x.dtype.type(_SMALLEST_NORM)), norm

    def _through_unit(self, dunit, unit, norm):
        tangent = dunit - unit * (dunit * unit).sum(-1, keepdims=True)
        return np.where(norm > _SMALLEST_NORM, tangent / norm, 0)

    def value(self, q, k):
        return Dot().value(self._unit(q)[0], self._unit(k)[0])

    def gradient(self, df, q, k):
        (q_unit, q_norm), (k_unit, k_norm) = self._unit(q), self._unit(k)
        dq_unit, dk_unit = Dot().gradient(df, q_unit, k_unit)
        return self._through_unit(dq_unit, q_unit, q_norm), self._through_unit(
            dk_unit, k_unit, k_norm
        )


class NegSqL2:
    """Minus the squared distance, -|q - k|^2."""

    def value(self, q, k):
        squares = np.zeros((*q.shape[:-1], k.shape[-2]), q.dtype)
        for d in range(q.shape[-1]):
            squares += (q[..., :, None, d] - k[..., None, :, d]) ** 2
        return -squares

    def gradient(self, df, q, k):
        return _pull_together(-2 * df, q, k)


class NegL2:
    """Minus the distance, -|q - k|; where q = k the gradient is defined as 0."""

    def value(self, q, k):
        return -np.sqrt(-NegSqL2().value(q, k))

    def gradient(self, df, q, k):
        f = self.value(q, k)
        return _pull_together(np.where(f == 0, 0, df / f), q, k)


def _pull_together(force, q, k):
    """Sum force_ij (q_i - k_j) over j for every query, and minus it over i for every key."""
    dq = force.sum(-1)[..., None] * q - force @ k
    dk = force.sum(-2)[..., None] * k - _transpose(force) @ q
    return dq, dk


class Additive:
    """The sum over d of weight_d tanh(q_d + k_d + bias_d), weight and bias (H, D)."""

    def __init__(self, weight, bias):
        self.weight, self.bias = weight, bias

    def _tanh(self, q, k, d):
        return np.tanh(q[..., :, None, d] + k[..., None, :, d] + self.bias[:, None, None, d])

    def value(self, q, k):
        f = np.zeros((*q.shape[:-1], k.shape[-2]), q.dtype)
        for d in range(q.shape[-1]):
            f += self.weight[:, None, None, d] * self._tanh(q, k, d)
        return f

    def gradient(self, df, q, k):
        dq, dk, dweight = np.zeros_like(q), np.zeros_like(k), np.zeros_like(self.weight)
        for d in range(q.shape[-1]):
            tanh = self._tanh(q, k, d)
            dsum = np.where(df == 0, 0, df * self.weight[:, None, None, d] * (1 - tanh * tanh))
            dq[..., d], dk[..., d] = dsum.sum(-1), dsum.sum(-2)
            dweight[:, d] = np.where(df == 0, 0, df * tanh).sum((-1, -2))
        return dq, dk, dweight, dq.sum(-2)


NAMED = {"dot": Dot, "cosine": Cosine, "neg_l2": NegL2, "neg_sq_l2": NegSqL2}
