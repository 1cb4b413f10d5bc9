"""Is what attnext.jax cannot do refused by name, when the call is traced if that can be known?"""

import re

import numpy as np
import pytest

import attnext

jax = pytest.importorskip("jax")
jnp = jax.numpy
import attnext.jax as attnext_jax  # noqa: E402

# JAX raises the one where it waits for the program, the other where it does not.
WHEN_IT_RUNS = (jax.errors.JaxRuntimeError, ValueError)
Q, K = jnp.zeros((2, 4, 9, 8)), jnp.zeros((2, 2, 7, 8))
PACKED = {"layout": "thd", "cu_seqlens_q": [0, 3, 9], "cu_seqlens_k": [0, 3, 7]}

REFUSED = [
    ({"q": [1.0]}, TypeError, "q must be an array of JAX or NumPy, found list"),
    ({"q": Q.astype(int)}, TypeError, "q must be float64, float32, float16 or bfloat16"),
    ({"k": K[..., :4]}, ValueError, "k must have q's head_dim 8, found 4"),
    ({"v": K.astype(jnp.bfloat16)}, TypeError, "v must have q's dtype float32, found bfloat16"),
    ({"mask": np.ones((9, 7))}, TypeError, "mask must be bool"),
    ({"mask": True}, TypeError, "mask must be an array of JAX or NumPy, found bool"),
    ({"bias": np.ones((9, 8), np.float32)}, ValueError, "bias must broadcast to"),
    ({"kv_lengths": [7, 8]}, ValueError, "kv_lengths must be in [0, seqlen_k 7], found 8"),
    ({"score": "euclid"}, ValueError, "score must be 'dot', 'cosine'"),
    ({"score": "cosine"}, ValueError, "scale must be given with score cosine"),
    (
        {"score": attnext.AdditiveScore(jnp.ones(5))},
        ValueError,
        "AdditiveScore.weight must have shape",
    ),
    ({"scale": jnp.ones(3)}, ValueError, "scale must have shape (num_heads_q,)"),
    ({"window": 3}, ValueError, "window must be a pair"),
    ({"dropout": 0.5}, ValueError, "seed is required when dropout > 0"),
    ({"dropout": 0.5, "seed": jnp.arange(3)}, ValueError, "seed must be"),
    ({"dropout": 0.5, "seed": jnp.float32(3)}, TypeError, "seed must be"),
    ({"out": np.zeros(Q.shape, np.float32)}, TypeError, "out must be None"),
    ({"backend": "reference"}, NotImplementedError, "backend must be None or 'cpu'"),
    ({"backend": "cuda"}, RuntimeError, "backend 'cuda' is not there"),
    ({"layout": "thd"}, ValueError, "cu_seqlens_q and cu_seqlens_k must be given"),
    ({"return_lse": 1}, TypeError, "return_lse must be True or False"),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED, ids=[x[2] for x in REFUSED])
@pytest.mark.parametrize("is_traced", [False, True])
def test_refused(changed, error, message, is_traced):
    arguments = {"q": Q, "k": K, "v": K, **changed}
    arrays = [arguments.pop(name) for name in ("q", "k", "v")]

    def call(*arrays):
        return attnext_jax.attention(*arrays, **arguments)

    is_list = isinstance(arrays[0], list)
    with pytest.raises(error, match=r"^attention: " + re.escape(message)):
        (jax.jit(call) if is_traced and not is_list else call)(*arrays)


def test_unknown_option():
    with pytest.raises(TypeError, match="unexpected keyword argument 'causel'"):
        attnext_jax.attention(Q, K, K, causel=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_lengths": jnp.array([7, 8])}, "kv_lengths must be in [0, seqlen_k 7], found 8"),
        ({"q_lengths": jnp.array([-1, 0])}, "q_lengths must be in [0, seqlen_q 9], found -1"),
    ],
)
def test_values_of_traced_arrays_are_refused_when_it_runs(options, message):
    run = jax.jit(lambda options: attnext_jax.attention(Q, K, K, **options))
    with pytest.raises(WHEN_IT_RUNS, match=re.escape(f"attention: {message}")):
        jax.block_until_ready(run(options))


def test_traced_packed_sequences_are_checked_when_they_run():
    q, k = jnp.zeros((9, 2, 8)), jnp.zeros((7, 2, 8))

    def run(starts, mask):
        options = {"cu_seqlens_q": starts, "cu_seqlens_k": jnp.array([0, 3, 7])}
        return attnext_jax.attention(q, k, k, layout="thd", mask=mask, **options)

    good = jax.jit(run)(jnp.array([0, 3, 9]), jnp.ones((6, 4), bool))
    assert good.shape == q.shape
    for starts, mask, name in (
        ([0, 3, 8], (6, 4), "cu_seqlens_q"), ([0, 3, 9], (6, 5), "mask"),
    ):  # fmt: skip
        with pytest.raises(WHEN_IT_RUNS, match=f"attention: {name} must"):
            jax.block_until_ready(jax.jit(run)(jnp.array(starts), jnp.ones(mask, bool)))


@pytest.mark.parametrize("function", ["attention_weights", "attention_stats"])
@pytest.mark.parametrize(
    ("options", "name"),
    [(PACKED, "layout 'thd'"), ({"block_table": [[0]], "kv_lengths": [3]}, "block_table")],
)
def test_sizes_that_depend_on_values(function, options, name):
    with pytest.raises(NotImplementedError, match=rf"^{function}: {name}"):
        getattr(attnext_jax, function)(Q, K, **options)


def test_rows():
    with pytest.raises(ValueError, match=r"^attention_weights: rows must be in \[-9, 9\), found 9"):
        attnext_jax.attention_weights(Q, K, rows=[0, 9])
    with pytest.raises(TypeError, match=r"^attention_weights: rows must be integers"):
        attnext_jax.attention_weights(Q, K, rows=[0.5])
    with pytest.raises(ValueError, match=r"^attention_weights: rows must have one axis"):
        attnext_jax.attention_weights(Q, K, rows=[[1]])


def test_merge():
    out, lse = attnext_jax.attention(Q, K, K, return_lse=True)
    for outs, lses, message in (
        ([], [], "at least one"), ([out], [], "as many"), ([out, out[:1]], [lse, lse], "share"),
        ([out], [lse[:, :1]], "axes of outs"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^merge_attention: .*{message}"):
            attnext_jax.merge_attention(outs, lses)


def test_other_functions_speak_of_their_own_arguments():
    x = jnp.zeros((2, 5, 8))
    with pytest.raises(ValueError, match=r"^attention_pool: weight must have shape"):
        attnext_jax.attention_pool(x, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"^bidirectional_attention: v_q must have the axes of q"):
        attnext_jax.bidirectional_attention(x, x, x[:, :3], x)
    with pytest.raises(NotImplementedError, match=r"^bidirectional_attention: block_table"):
        attnext_jax.bidirectional_attention(x, x, x, x, block_table=[[0]])
    with pytest.raises(ValueError, match=r"^dot_product_attention: key must have query's batch"):
        attnext_jax.dot_product_attention(Q, Q[:1], Q[:1])
    with pytest.raises(ValueError, match=r"^dot_product_attention: implementation must be None"):
        attnext_jax.dot_product_attention(Q, Q, Q, implementation="cudnn")
    with pytest.raises(ValueError, match=r"^dot_product_attention: local_window_size must be"):
        attnext_jax.dot_product_attention(Q, Q, Q, local_window_size=-1)
    with pytest.raises(ValueError, match=r"^rotary: x must have 2 to 4 axes"):
        attnext_jax.rotary(x[..., :7], np.arange(5))
    with pytest.raises(ValueError, match=r"^rotary: positions must have shape"):
        jax.jit(lambda p: attnext_jax.rotary(x, p))(jnp.arange(4))


WITHOUT_JAX = """
import sys
sys.modules["jax"] = None
import attnext
try:
    import attnext.jax
except ImportError as error:
    print(error)
"""


def test_missing_jax_is_asked_for_by_its_extra(run_python):
    assert run_python(WITHOUT_JAX) == 'attnext.jax needs JAX: pip install "attnext[jax]"\n'


def test_attnext_does_not_import_jax(run_python):
    code = "import sys, attnext; print('jax' in sys.modules)"
    assert run_python(code) == "False\n"
