"""Which query-key pairs does dropout keep? A counter-based rule without state, order or tiles."""

import numpy as np

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)


def philox(counter, seed):
    """Draw four random words for each counter of four: Philox4x32-10 of Salmon et al. (2011).

    Parameters
    ----------
    counter : sequence of four arrays of uint64
        The words of the counter, each below 2**32, broadcast against each other.
    seed : int
        The 64-bit key.

    Returns
    -------
    list of four arrays of uint64
        Random words, each below 2**32.
    """
    words = list(np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter)))
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        first, second = _MULTIPLIERS[0] * words[0], _MULTIPLIERS[1] * words[2]
        words = [
            (second >> _WORD_BITS) ^ words[1] ^ np.uint64(key[0]),
            second & _LOW_WORD,
            (first >> _WORD_BITS) ^ words[3] ^ np.uint64(key[1]),
            first & _LOW_WORD,
        ]
        key = [(part + step) & 0xFFFFFFFF for part, step in zip(key, _KEY_STEPS, strict=True)]
    return words


def keep_pairs(heads, seqlen_q, seqlen_k, dropout, seed, stream=0):
    """Say which pairs survive, bool (heads, Sq, Sk); heads are ``batch * num_heads_q + head``."""
    heads = np.asarray(heads).reshape(-1, 1, 1)
    rows = np.arange(seqlen_q).reshape(1, -1, 1)
    quads = np.arange(-(-seqlen_k // 4)).reshape(1, 1, -1)
    words = np.stack(philox((quads, rows, heads, stream), seed), axis=-1)
    words = words.reshape(*words.shape[:2], 4 * words.shape[2])[..., :seqlen_k]
    return words >= np.uint64(round(dropout * 2.0**32))


def dropout_mask(shape, dropout, seed, *, stream=0):
    """Say which of the weights, of shape (B, Hq, Sq, Sk), dropout keeps."""
    batch, num_heads_q, seqlen_q, seqlen_k = (1,) * (4 - len(shape)) + tuple(shape)
    keep = keep_pairs(np.arange(batch * num_heads_q), seqlen_q, seqlen_k, dropout, seed, stream)
    return keep.reshape(shape)
