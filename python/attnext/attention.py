"""What does a call of attention mean? Its signature, whose options all other functions share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _core

if TYPE_CHECKING:
    from typing import Literal

    Causal = bool | Literal["bottom_right", "top_left"]
    Layout = Literal["bhsd", "bshd", "thd"]
    Backend = Literal["cpu", "cuda", "cuda-emulated", "reference"] | None

__all__ = ["AdditiveScore", "attention"]


class AdditiveScore(NamedTuple):
    """The score ``sum_d weight_d * tanh(q_d + k_d + bias_d)`` of Bahdanau et al. (2015).

    Attributes
    ----------
    weight : array (D,) or (Hq, D)
        Any float dtype. Its gradient is `AttentionGrads.dweight`.
    bias : array (D,) or (Hq, D), optional
        Likewise; its gradient is `AttentionGrads.dscore_bias`.
    """

    weight: Any
    bias: Any = None


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    score: str | AdditiveScore = "dot",
    scale: Any = None,
    causal: Causal = False,
    q_offset: Any = None,
    window: Sequence[int | None] | None = None,
    softcap: float | None = None,
    mask: Any = None,
    bias: Any = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    dropout: float = 0.0,
    seed: int | None = None,
    q_lengths: Any = None,
    kv_lengths: Any = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    block_table: Any = None,
    layout: Layout = "bhsd",
    return_lse: bool = False,
    out: Any = None,
    backend: Backend = None,
) -> Any:
    r"""``softmax(scale * q @ k.T + bias, over the visible keys) @ v``, without the score matrix.

    Precisely, with every intermediate in float32 (float64 for float64 inputs): ``s = scale *
    score(q, k)``; then ``s = softcap * tanh(s / softcap)``; then bias and ALiBi are added; then
    invisible pairs get ``-inf``; then ``lse = log(sum(exp(s)) + exp(sink))``, ``p = exp(s - lse)``,
    dropout on p, and ``out = p @ v``.

    Parameters
    ----------
    q : array (B, Hq, Sq, D), (Hq, Sq, D) or (Sq, D)
        NumPy, or anything with ``__dlpack__`` in host memory or on a CUDA device; float64, float32,
        float16 or bfloat16 (``ml_dtypes`` under NumPy). Any strides.
    k : array (B, Hk, Sk, D), (Hk, Sk, D) or (Sk, D)
        Of q's library, dtype and rank. Hq is a multiple of Hk: query head h reads key head ``h //
        (Hq // Hk)``.
    v : array (B, Hk, Sk, Dv), (Hk, Sk, Dv) or (Sk, Dv)
        Likewise; Dv may differ from D.
    score : {"dot", "cosine", "neg_l2", "neg_sq_l2"} or AdditiveScore
        ``q.k``; ``q.k / (|q| |k|)``, for which `scale` is required; ``-|q - k|``; ``-|q - k|**2``;
        or the score of Bahdanau et al., see `AdditiveScore`.
    scale : float or array (Hq,), optional
        Factor of the score; an array has a gradient. Default: ``1 / sqrt(D)`` for dot, 1 for the
        others.
    causal : bool or {"bottom_right", "top_left"}
        A query sees no key beyond its own position. True is "bottom_right": the last query sees the
        last key, as in decoding; "top_left": the first query sees the first key, as PyTorch's
        ``is_causal`` does. With 3 queries and 5 keys (x: visible)::

            bottom_right   x x x . .      top_left   x . . . .
                           x x x x .                 x x . . .
                           x x x x x                 x x x . .

    q_offset : int or integer array (B,), optional
        Key position of the first query, for causal, window and ALiBi alike; overrides the alignment
        above.
    window : (left, right), optional
        How many keys a query sees to either side of its own position, inclusive; -1 or None: all.
        With `causal`, right is 0.
    softcap : float, optional
        Scores pass through ``softcap * tanh(s / softcap)``. None or 0: they do not.
    mask : bool array broadcastable to (B, Hq, Sq, Sk), optional
        True: may attend. Layout "thd": broadcastable to (number of sequences, Hq, longest Sq,
        longest Sk). With `block_table`, Sk is the longest of `kv_lengths` or max_pages * page_size.
        A query without any visible key gets ``out = 0``, ``lse = -inf`` and no gradient.
    bias : float array broadcastable to (B, Hq, Sq, Sk), optional
        Added to the score; ``-inf`` hides a pair. Its axes are those of `mask`.
    alibi_slopes : float array (Hq,) or (B, Hq), optional
        ``-slope * |distance|`` is added to the score (Press et al., 2022). See `alibi_slopes`.
    sinks : float array (Hq,), optional
        A logit per head that joins the denominator only (Xiao et al., 2024).
    dropout : float
        Probability in [0, 1] with which a weight is dropped; the others grow by ``1 / (1 -
        dropout)``.
    seed : int, optional
        In [0, 2**64); required when ``dropout > 0``. See `dropout_mask`.
    q_lengths, kv_lengths : integer array (B,), optional
        How much of each padded sequence exists. Rows beyond ``q_lengths`` get ``out = 0``, ``lse =
        -inf``.
    cu_seqlens_q, cu_seqlens_k : integer array (number of sequences + 1,), optional
        Where the sequences of layout "thd" begin and end, from 0 to the total.
    block_table : integer array (B, max_pages), optional
        k and v are pages (num_pages, page_size, Hk, D), whatever the layout of q; row b lists those
        of sequence b. Needs `kv_lengths`. Forward only.
    layout : {"bhsd", "bshd", "thd"}
        "bshd": (B, S, H, D) or (S, H, D). "thd": sequences one after another, (total, H, D), with
        `cu_seqlens_q` and `cu_seqlens_k`. Axes are read by strides; nothing is copied.
    return_lse : bool
        Also return the logarithm of each row's sum.
    out : array, optional
        Where to put the result: like the result in shape, dtype and library or NumPy, sharing no
        memory with inputs. For float16 and bfloat16 it may be of float32, and then is not rounded.
    backend : {None, "cpu", "cuda", "cuda-emulated", "reference"}
        None: where q lives. "cuda": arrays in host memory go to the first CUDA device and their
        results come back; CUDA arrays stay where they are, and the work is queued on the stream
        that their library works on. "reference": plain NumPy in float64, see `attnext.reference`.
        "cuda-emulated": the CUDA kernels on the CPU, slowly, where the build has them.

    Returns
    -------
    out : array (B, Hq, Sq, Dv)
        In q's library, dtype, rank and layout.
    lse : array (B, Hq, Sq)
        Only with `return_lse`; natural logarithm, float32 (float64 for float64). Layout "thd": (Hq,
        total).

    Raises
    ------
    ValueError
        A shape or a value breaks a rule.
    TypeError
        A dtype, a library or a device breaks a rule; a tensor requires grad.
    NotImplementedError
        The back end lacks the combination.
    RuntimeError
        The back end is not there, or its device failed.

    See Also
    --------
    attention_vjp : The result together with its gradient.
    explain : Which kernel a call runs, and why.

    Notes
    -----
    The method is the exact, tiled online softmax of Milakov and Gimelshein (2018) and Dao et al.
    (2022). Memory beyond inputs and outputs grows with the sequence length, not with its square.

    Examples
    --------
    >>> import numpy as np
    >>> import attnext
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 8, 100, 64), dtype=np.float32)
    >>> attnext.attention(q, k, v, causal=True).shape
    (2, 8, 100, 64)

    A window over a packed batch of two sequences, with the logarithm of each row's sum:

    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 12, 4, 16))
    >>> out, lse = attnext.attention(
    ...     q, k, v, layout="thd", cu_seqlens_q=[0, 5, 12], cu_seqlens_k=[0, 5, 12],
    ...     causal=True, window=(3, 0), return_lse=True)
    >>> out.shape, lse.shape
    ((12, 4, 16), (4, 12))
    """
    options = (
        score, scale, causal, q_offset, window, softcap, mask, bias, alibi_slopes, sinks, dropout,
        seed, q_lengths, kv_lengths, cu_seqlens_q, cu_seqlens_k, block_table, layout, backend,
    )  # fmt: skip
    if backend is not None:
        from .errors import speaking_of
        from .options import is_reference
        from .reference_backend import run_forward

        with speaking_of("attention", {}):
            if is_reference(backend):
                return run_forward(q, k, v, (*options[:-1], None), return_lse, out)
    return _core.forward(q, k, v, options, return_lse, out, 0, False)
