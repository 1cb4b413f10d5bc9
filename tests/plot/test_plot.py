"""Do the pictures show the weights, those asked for and no others, and leave the rest alone?"""

import numpy as np
import pytest

import attnext

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402

from attnext import plot  # noqa: E402
from attnext.plot import fonts, weights  # noqa: E402


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(name="qk")
def _qk():
    return draw(0, 2, 4, 6, 8), draw(1, 2, 2, 9, 8)


@pytest.fixture(name="computed")
def _computed(monkeypatch):
    """The rows that every call of attention_weights was asked for."""
    asked = []

    def recording(q, k, *, rows=None, **options):
        asked.append(rows)
        return attnext.attention_weights(q, k, rows=rows, **options)

    monkeypatch.setattr(weights, "attention_weights", recording)
    return asked


def cells(figure, number=0):
    return np.asarray(figure.axes[number].images[0].get_array())


def texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_heatmap_shows_the_weights_of_a_head_and_their_mean(qk):
    p = attnext.attention_weights(*qk, causal=True)
    np.testing.assert_array_equal(cells(plot.heatmap(*qk, causal=True, head=3, batch=1)), p[1, 3])
    np.testing.assert_allclose(cells(plot.heatmap(*qk, causal=True)), p[0].mean(0))
    np.testing.assert_array_equal(cells(plot.heatmap(p, head=-1)), p[0, 3])


def test_causal_is_bottom_right(qk):
    assert (cells(plot.heatmap(*qk, causal=True)) > 0).tolist() == np.tri(6, 9, 3, bool).tolist()


def test_chosen_rows_and_keys(qk, computed):
    p = attnext.attention_weights(*qk)
    shown = cells(plot.heatmap(*qk, rows=[-1, 2], keys=slice(1, 7, 2), head=0))
    np.testing.assert_array_equal(shown, p[0, 0][[5, 2]][:, 1:7:2])
    assert computed == [[5, 2]]


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_no_square_unless_asked(computed, layout):
    q = draw(0, 300, 1, 4) if layout == "bshd" else draw(0, 1, 300, 4)
    figure = plot.heatmap(q, q, layout=layout)
    assert cells(figure).shape == (64, 300)
    assert figure.axes[0].get_ylabel() == "query (64 of 300)"
    assert (computed[0][0], computed[0][-1], len(computed[0])) == (0, 299, 64)
    assert cells(plot.heatmap(q, q, layout=layout, rows="all")).shape == (300, 300)


def test_layout_thd():
    q = draw(0, 12, 2, 4)
    options = {"layout": "thd", "cu_seqlens_q": [0, 5, 12], "cu_seqlens_k": [0, 5, 12]}
    p = attnext.attention_weights(q, q, **options)
    np.testing.assert_array_equal(cells(plot.heatmap(q, q, head=1, **options)), p[1])


def test_many_keys_keep_their_largest():
    p = np.zeros((2, 5000))
    p[1, 4321:4323] = 0.75, 0.5
    figure = plot.heatmap(p)
    shown = cells(figure)
    assert shown.shape == (2, 1000)
    assert shown.max() == 0.75
    assert figure.axes[0].get_xlabel() == "key (the largest weight of each 5)"


def test_a_towering_weight_does_not_blanch_the_rest():
    p = np.full((30, 30), 0.01)
    p[0, 0] = 1
    image = plot.heatmap(p).axes[0].images[0]
    assert image.norm.vmax == pytest.approx(0.01)
    assert image.colorbar.extend == "max"
    assert plot.heatmap(p[1:]).axes[0].images[0].colorbar.extend == "neither"


def test_labels_are_written_as_they_are(qk):
    tokens = ["$x$", "a_b", " ", "\n", "^", "y" * 40]
    axes = plot.heatmap(*qk, query_labels=tokens, key_labels=range(9)).axes[0]
    assert texts(axes.yaxis) == ["$x$", "a_b", "␣", "↵", "^", "y" * 23 + "…"]
    axes.figure.canvas.draw()  # mathematics would fail to parse
    chosen = plot.heatmap(*qk, rows=[4, 0], query_labels=tokens).axes[0]
    assert texts(chosen.yaxis) == ["^", "$x$"]


def test_more_labels_than_room_are_thinned():
    axes = plot.heatmap(np.ones((3, 900)), key_labels=[f"token{n}" for n in range(900)]).axes[0]
    shown = texts(axes.xaxis)
    assert 10 < len(shown) < 100
    assert shown[0] == "token0"
    assert shown[1] == f"token{round(axes.get_xticks()[1])}"


def test_alignment_view_has_the_source_on_top():
    p = np.eye(2, 3)
    axes = plot.alignment_view(p, source="abc", target="de", annotate=True).axes[0]
    assert (texts(axes.xaxis), texts(axes.yaxis)) == (["a", "b", "c"], ["d", "e"])
    assert axes.xaxis.get_ticks_position() == "top"
    assert axes.images[0].norm.vmax == 1
    assert [text.get_text() for text in axes.texts] == ["100", "100"]


def test_head_view(qk):
    p = attnext.attention_weights(*qk, window=(2, 2))
    figure = plot.head_view(*qk, window=(2, 2), heads=[3, 1], batch=1)
    np.testing.assert_array_equal(cells(figure, 0), p[1, 3])
    np.testing.assert_array_equal(cells(figure, 1), p[1, 1])
    assert figure.axes[0].get_title("left") == "head 3"
    assert len({axes.images[0].norm.vmax for axes in figure.axes[:2]}) == 1
    assert len(plot.head_view(draw(0, 40, 3, 2), draw(1, 40, 3, 2)).axes) == 16 + 1


def test_image_view_of_patches():
    picture = np.zeros((30, 40, 3), np.uint8)
    p = np.random.default_rng(0).dirichlet(np.ones(13), size=2)
    figure = plot.image_view(picture, p, grid=(3, 4), first=1, query_labels=["sky", "dog"])
    glow = figure.axes[1].images[1]
    np.testing.assert_allclose(glow.get_array() * p[0, 1:].max(), p[0, 1:].reshape(3, 4))
    assert glow.get_extent() == [-0.5, 39.5, 29.5, -0.5]
    assert figure.axes[2].get_title("left").startswith("dog")


def test_image_view_of_regions():
    boxes = [[0, 0, 20, 10], [10, 0, 30, 10]]
    figure = plot.image_view(np.zeros((10, 40)), [[0.25, 0.75]], boxes=boxes)
    glow = np.asarray(figure.axes[1].images[1].get_array())[5]
    np.testing.assert_allclose(glow[[0, 9, 10, 29, 30]], [1 / 3, 1 / 3, 1, 1, 0])


def test_curves_from_q_and_k_statistics_and_weights_agree(qk):
    stats = attnext.attention_stats(*qk, causal=True)
    p = attnext.attention_weights(*qk, causal=True)
    for view, field in ((plot.entropy_curve, "entropy"), (plot.key_mass_curve, "key_mass")):
        for given in (view(*qk, causal=True, batch=1), view(stats, batch=1), view(p, batch=1)):
            for line, expected in zip(given.axes[0].lines, getattr(stats, field)[1], strict=True):
                np.testing.assert_allclose(line.get_ydata(), expected, atol=1e-12)


def test_curves_of_many_heads_show_their_mean():
    q = draw(0, 12, 5, 3)
    axes = plot.entropy_curve(q, q).axes[0]
    mean = attnext.attention_stats(q, q).entropy.mean(0)
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), mean)
    assert axes.lines[-1].get_label() == "mean of 12 heads"


def test_the_callers_axes_and_figure_are_used(qk):
    figure = Figure()
    left, right = figure.subfigures(1, 2)
    ax = left.subplots()
    assert plot.heatmap(*qk, ax=ax) is left
    assert plot.head_view(*qk, figure=right) is right
    assert len(ax.images) == 1
    assert len(right.axes) == 4 + 1


def test_torch_tensors_with_gradients(qk):
    torch = pytest.importorskip("torch")
    q, k = (torch.tensor(x, requires_grad=True) for x in qk)
    slopes = torch.ones(4, requires_grad=True)
    expected = plot.heatmap(*qk, alibi_slopes=np.ones(4, np.float32))
    np.testing.assert_allclose(cells(plot.heatmap(q, k, alibi_slopes=slopes)), cells(expected))
    p = (q @ k.repeat_interleave(2, 1).mT).softmax(-1)
    assert cells(plot.heatmap(p.bfloat16())).shape == (6, 9)


def test_nothing_global_changes(run_python):
    code = """
import sys
import numpy as np
import matplotlib
before = dict(matplotlib.rcParams)
from attnext import plot
p = np.ones((2, 3, 3)) / 3
for figure in (plot.heatmap(p), plot.head_view(p), plot.entropy_curve(p), plot.key_mass_curve(p),
               plot.alignment_view(p, source="abc", target="def"),
               plot.image_view(np.zeros((4, 4)), p[:, :, :1])):
    figure.canvas.draw()
assert "matplotlib.pyplot" not in sys.modules
assert dict(matplotlib.rcParams) == before
"""
    run_python(code, MPLBACKEND="agg")  # reading an undecided one would import pyplot


def test_import_attnext_leaves_matplotlib_alone(run_python):
    run_python("import sys, attnext; assert 'matplotlib' not in sys.modules")


def test_missing_matplotlib_is_named(run_python):
    run_python("""
import sys
sys.modules["matplotlib"] = None
try:
    import attnext.plot
except ModuleNotFoundError as error:
    assert str(error) == 'attnext.plot needs matplotlib: pip install "attnext[plot]"', error
else:
    raise AssertionError("imported")
""")


def test_a_font_with_the_characters_is_found(monkeypatch):
    usual = fonts.font_manager.findfont(fonts.FontProperties())
    monkeypatch.setattr(
        fonts, "_characters", lambda file: frozenset("喜欢" if file == "x" else "a")
    )
    monkeypatch.setattr(fonts, "_candidates", lambda: iter([usual, "x"]))
    assert fonts.font_for("heatmap", ["a"], None) is None
    assert fonts.font_for("heatmap", ["喜欢"], None).get_file() == "x"


def test_a_font_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(fonts, "_candidates", lambda: iter([]))
    with pytest.warns(UserWarning, match=r"^heatmap: no font found here with '喜欢': pip install"):
        plot.heatmap(np.ones((1, 2)), key_labels=["喜", "欢"])
    usual = fonts.font_manager.findfont(fonts.FontProperties())
    plot.heatmap(np.ones((1, 2)), key_labels=["喜", "欢"], font=usual)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plot.heatmap(np.ones(3)), ValueError, r"heatmap: weights must be \(R, K\)"),
        (lambda: plot.heatmap(np.ones((0, 3))), ValueError, "none of them 0"),
        (lambda: plot.heatmap(np.ones((2, 2)), causal=True), TypeError, "causal needs q and k"),
        (
            lambda: plot.heatmap(np.ones((2, 2)), np.ones((2, 3))),
            ValueError,
            "attention_weights: k must have q's head_dim",
        ),
        (lambda: plot.heatmap(np.ones((2, 2)), np.ones((2, 2)), casual=1), TypeError, "casual"),
        (lambda: plot.heatmap(np.ones((2, 2)), rows=[2]), ValueError, r"rows must be in \[-2, 2\)"),
        (lambda: plot.heatmap(np.ones((2, 2)), rows=0.5), TypeError, "rows must be 'all', a slice"),
        (lambda: plot.heatmap(np.ones((2, 2)), keys=slice(2, 9)), TypeError, "keys must be 'all'"),
        (lambda: plot.heatmap(np.ones((2, 2)), head=1), ValueError, r"head must be in \[-1, 1\)"),
        (lambda: plot.heatmap(np.ones((2, 2)), batch=1), ValueError, "batch must be in"),
        (lambda: plot.heatmap(np.ones((2, 2)), ax=1), TypeError, "ax must be matplotlib Axes"),
        (lambda: plot.heatmap([["a"]]), TypeError, "weights must be numbers"),
        (
            lambda: plot.heatmap(np.ones((2, 3)), key_labels="ab"),
            ValueError,
            "key_labels must have 3 entries, found 2",
        ),
        (lambda: plot.head_view(np.ones((2, 2)), figure=1), TypeError, "figure must be a matplot"),
        (lambda: plot.image_view(np.ones(3), np.ones((1, 4))), ValueError, "image must be"),
        (lambda: plot.image_view(np.ones((3, 3)), np.ones((1, 5))), ValueError, "grid must be gi"),
        (
            lambda: plot.image_view(np.ones((3, 3)), np.ones((1, 4)), grid=(2, 3)),
            ValueError,
            "grid must have at most the 4 keys",
        ),
        (
            lambda: plot.image_view(np.ones((3, 3)), np.ones((1, 4)), boxes=np.ones((3, 4))),
            ValueError,
            r"boxes must be \(4, 4\)",
        ),
        (lambda: plot.entropy_curve(np.ones((2, 2)), causal=True), TypeError, "causal needs q"),
    ],
)
def test_refusals(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
