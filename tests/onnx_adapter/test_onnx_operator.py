"""Does attnext's operator do what ONNX says? Its own node tests, opset 23 to 25, and its rules."""

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import attnext
import attnext.onnx

BOUNDS = {"float64": 1e-9, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")


def node_tests():
    with np.errstate(all="ignore"):
        import onnx.backend.test.case.node.attention  # noqa: F401  (importing it collects its cases)
        from onnx.backend.test.case.node import _NodeTestCases
    return {
        case.name: case
        for case in _NodeTestCases
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type == "Attention"
    }


CASES = node_tests()


@pytest.fixture(name="calls")
def _calls(monkeypatch):
    """Options of every call of attnext.attention: a test that passes without one proves nothing."""
    seen = []

    def recording(*arrays, **options):
        seen.append(options)
        return attnext.attention(*arrays, **options)

    monkeypatch.setattr(attnext.onnx.operator, "attention", recording)
    return seen


def assert_close(found, truth, name=""):
    truth = np.asarray(truth)
    bound = BOUNDS[truth.dtype.name]
    assert (found.shape, found.dtype) == (truth.shape, truth.dtype), name
    found, truth = found.astype(np.float64), truth.astype(np.float64)
    np.testing.assert_allclose(found, truth, rtol=bound, atol=bound, err_msg=name)


def test_node_tests_were_found():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_node(name, calls):
    case = CASES[name]
    evaluator = ReferenceEvaluator(case.model, new_ops=[attnext.onnx.Attention])
    names = [value.name for value in case.model.graph.input]
    for given, expected in case.data_sets:
        results = evaluator.run(None, dict(zip(names, given, strict=True)))
        for output, found, truth in zip(case.model.graph.output, results, expected, strict=True):
            assert_close(np.asarray(found), truth, output.name)
    assert len(calls) == len(case.data_sets)


def run(inputs, *, opset=25, num_outputs=1, new_ops=(attnext.onnx.Attention,), **attributes):
    """One node on arrays by ONNX's names; returns its outputs."""
    last = max(INPUTS.index(name) for name in inputs)
    slots = [name if name in inputs else "" for name in INPUTS[: last + 1]]
    outputs = ["Y", "present_key", "present_value", "qk"][:num_outputs]
    node = helper.make_node("Attention", slots, outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "attention",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in inputs.items()
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return ReferenceEvaluator(model, new_ops=list(new_ops)).run(None, inputs)


def arrays(*, queries=3, keys=5, heads=4, groups=2, dim=8, dtype=np.float32, **more):
    draw = np.random.default_rng(0).standard_normal
    shapes = {"Q": (2, heads, queries, dim), "K": (2, groups, keys, dim), "V": (2, groups, keys, 6)}
    return {**{name: draw(shape).astype(dtype) for name, shape in shapes.items()}, **more}


def visible(inputs, **attributes):
    """Which keys a query attends to, by the weights that the node reports."""
    weights = run(inputs, num_outputs=4, qk_matmul_output_mode=3, **attributes)[3]
    return (weights[0, 0] > 0).astype(int).tolist()


def test_causal_corner_is_top_left_without_a_past():
    assert visible(arrays(), is_causal=1) == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_causal_corner_follows_the_past():
    past = {name: np.ones((2, 2, 1, n), np.float32) for name, n in PAST.items()}
    assert visible(arrays(keys=2, **past), is_causal=1) == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]


PAST = {"past_key": 8, "past_value": 6}


def test_causal_corner_follows_the_lengths():
    lengths = np.array([4, 2])
    assert visible(arrays(nonpad_kv_seqlen=lengths), is_causal=1) == [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
    ]


def test_windows_are_inclusive():
    found = visible(arrays(), left_window_size=1, right_window_size=0)
    assert found == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]


def test_true_may_attend_and_what_a_narrow_mask_lacks_is_hidden():
    mask = np.array([[True, False, True]] * 3)
    assert visible(arrays(attn_mask=mask)) == [[1, 0, 1, 0, 0]] * 3


def test_default_scale_is_that_of_the_queries_width():
    inputs = arrays()
    assert_close(run(inputs)[0], run(inputs, scale=8**-0.5)[0])
    assert np.abs(run(inputs)[0] - run(inputs, scale=1.0)[0]).max() > 0.1


def test_a_row_without_keys_is_zero():
    mask = np.array([[True] * 5, [False] * 5, [True] * 5])
    y, _, _, weights = run(arrays(attn_mask=mask), num_outputs=4, qk_matmul_output_mode=3)
    assert (y[:, :, 1] == 0).all()
    assert (weights[:, :, 1] == 0).all()
    assert (y[:, :, 0] != 0).all()


def test_softcap_comes_before_the_mask():
    inputs = arrays(attn_mask=np.array([0, 0, -np.inf, 0, 0], np.float32))
    assert visible(inputs, softcap=0.5) == [[1, 1, 0, 1, 1]] * 3


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"attn_mask": np.array([0.5, -np.inf, 1, 2, 3], np.float32)},
        {"attn_mask": np.tri(3, 5, 1, dtype=bool)},
        {"nonpad_kv_seqlen": np.array([4, 3])},
    ],
    ids=["", "bias", "mask", "lengths"],
)
def test_scores_are_those_of_onnx(mode, extra):
    inputs = arrays(**extra)
    inputs["Q"] = inputs["Q"] * 40  # weights that vanish leave their scores
    options = {"num_outputs": 4, "qk_matmul_output_mode": mode, "left_window_size": 2}
    found = run(inputs, **options)
    for ours, truth in zip(found, run(inputs, new_ops=(), **options), strict=True):
        assert_close(ours, truth)


def test_values_of_another_type():
    inputs = arrays(dtype=np.float16)
    truth = run(inputs)[0]
    assert truth.dtype == np.float16
    inputs["V"] = inputs["V"].astype(np.float32)
    assert_close(run(inputs)[0], truth)


def test_double_softmax_of_single_inputs():
    inputs = arrays()
    precise = run({n: x.astype(np.float64) for n, x in inputs.items()})[0]
    found = run(inputs, softmax_precision=TensorProto.DOUBLE)[0]
    assert found.dtype == np.float32
    assert (found == precise.astype(np.float32)).all()


@pytest.mark.parametrize(
    ("extra", "attributes", "message"),
    [
        (
            {"past_key": np.ones((2, 2, 1, 8), np.float32)},
            {},
            "past_key and past_value must be giv",
        ),
        ({}, {"q_num_heads": 3}, "q_num_heads must be that of a Q of rank 4"),
        ({"Q": np.ones((2, 3, 8), np.float32)}, {"q_num_heads": 3}, "q_num_heads must divide the"),
        ({"Q": np.ones((3, 8), np.float32)}, {}, "Q must have 3 or 4 axes"),
        ({"nonpad_kv_seqlen": np.array([6, 1])}, {}, "kv_lengths"),
        ({"K": np.ones((2, 2, 5, 9), np.float32)}, {}, "k must have q's head_dim 8, found 9"),
        ({}, {"qk_matmul_output_mode": 4, "num_outputs": 4}, "qk_matmul_output_mode must be in"),
    ],
)
def test_refusals(extra, attributes, message):
    with pytest.raises(ValueError, match=message):
        run({**arrays(), **extra}, **attributes)


def test_import_attnext_leaves_onnx_alone(run_python):
    run_python("import sys, attnext; assert 'onnx' not in sys.modules")


def test_missing_onnx_is_named(run_python):
    run_python("""
import sys
sys.modules["onnx"] = None
try:
    import attnext.onnx
except ModuleNotFoundError as error:
    assert str(error) == 'attnext.onnx needs onnx: pip install "attnext[onnx]"', error
else:
    raise AssertionError("imported")
""")
