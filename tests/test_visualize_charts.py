"""Curves, bars, swarms, signals and texts: the numbers that they draw and write."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from pictures import ROWS, SCORES, TOKENS, WAVE, luminance
from scipy import stats

from torchwhy import visualize as v


def test_curve_draws_the_mean_its_band_and_its_area():
    figure = v.curve([0.0, 0.25, 1.0], {"a": [[1.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.5, 0.2, 0.3]]})
    ax = figure.axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.5, 0.4, 0.1])
    area = 0.25 * (0.5 + 0.4) / 2 + 0.75 * (0.4 + 0.1) / 2
    assert ax.get_legend().get_texts()[0].get_text() == f"a   AUC {area:.3f}"
    low, high = stats.t.interval(0.95, 2, loc=0.5, scale=stats.sem([1.0, 0.0, 0.5]))
    edge = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([edge[edge[:, 0] == 0, 1].min(), edge[edge[:, 0] == 0, 1].max()], [low, high])


def test_curve_takes_a_given_area_or_none():
    figure = v.curve([0.0, 1.0], {"a": [1.0, 0.0]}, auc={"a": 0.123})
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "a   AUC 0.123"
    figure = v.curve([0.0, 1.0], {"a": [1.0, 0.0]}, auc=False)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "a"
    assert v.curve([0.0, 1.0], [1.0, 0.0], auc=False).axes[0].get_legend() is None
    with pytest.raises(ValueError, match="auc has no number for 'a'"):
        v.curve([0.0, 1.0], {"a": [1.0, 0.0]}, auc={"b": 0.1})


def test_lines_that_do_not_fit():
    with pytest.raises(ValueError, match=r"scores\['a'\] has 3 points, but the horizontal axis has 2"):
        v.curve([0.0, 1.0], {"a": [1.0, 0.0, 0.0]})
    for fractions in ([1.0, 0.0], [0.0, 0.0], [0.0]):
        with pytest.raises(ValueError, match="fractions must be two or more ascending numbers"):
            v.curve(fractions, [1.0] * len(fractions))
    with pytest.raises(ValueError, match="steps must be positive"):
        v.convergence([0, 1], [1.0, 1.0])


def test_convergence_is_log_log_and_shows_zeros_at_the_foot():
    ax = v.convergence([2, 4, 8], [-0.5, 0.04, 0.0], tolerance=0.01).axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    np.testing.assert_allclose(ax.lines[0].get_ydata()[:2], [0.5, 0.04])
    triangle = ax.lines[1]
    assert triangle.get_marker() == "v"
    assert triangle.get_xdata().tolist() == [8]
    assert 0 < triangle.get_ydata()[0] < 0.01
    assert ax.lines[2].get_ydata() == [0.01, 0.01]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2", "4", "8"]


def test_convergence_of_several_rows_is_their_median():
    ax = v.convergence([2, 4], [[0.1, 0.2], [0.3, 0.1], [0.9, 0.01]]).axes[0]
    np.testing.assert_allclose(ax.lines[3].get_ydata(), [0.3, 0.1])


def test_path_profile_writes_the_change():
    ax = v.path_profile([0.0, 0.5, 1.0], [1.0, 4.0, 3.5]).axes[0]
    assert [t.get_text() for t in ax.texts] == ["+2.5"]


def test_bars_are_sorted_signed_and_add_up():
    figure = v.bars([0.5, -2.0, 0.1, 1.0], ["a", "b", "c", "d"], errors=[0.1, 0.2, 0.3, 0.4], top=2)
    ax = figure.axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, [-2, 1, 0.6])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "d", "the other 2"]
    assert [t.get_text() for t in ax.texts] == ["−2.00 ± 0.20", "+1.00 ± 0.40", "+0.60"]
    b, d, others = (bar.get_facecolor() for bar in ax.patches)
    assert b[2] > b[0]
    assert d[0] > d[2]
    assert others[0] == others[2]
    ends = np.concatenate(ax.collections[0].get_segments())
    np.testing.assert_allclose(ends[:, 0], [-2.2, -1.8, 0.6, 1.4])


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (([1.0, 2.0], ["a"]), {}, "names has 1 strings, but there are 2 features"),
        (([1.0, 2.0],), {"errors": [1.0]}, "errors must be 2 numbers"),
        (([1.0, 2.0],), {"errors": [1.0, -1.0]}, "errors must be 2 numbers that are not negative"),
        (([1.0, 2.0],), {"top": 0}, "top must be at least 1"),
        (([[1.0], [2.0]],), {}, "values must be one row"),
        (([],), {}, "values is empty"),
    ],
)
def test_bars_that_do_not_fit(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        v.bars(*arguments, **options)


def test_beeswarm_shows_every_point_once():
    ax = v.beeswarm(ROWS, top=3).axes[0]
    order = np.argsort(-np.abs(ROWS).mean(0))[:3]
    for line, (swarm, feature) in enumerate(zip(ax.collections, order)):
        at = np.asarray(swarm.get_offsets())
        np.testing.assert_array_equal(at[:, 0], ROWS[:, feature])
        assert np.abs(at[:, 1] - line).max() <= 0.4
    crowd = np.asarray(v.beeswarm(np.zeros((500, 1)) + 1.0).axes[0].collections[0].get_offsets())
    assert len(np.unique(crowd[:, 1])) == 500
    assert np.abs(crowd[:, 1]).max() <= 0.4
    with pytest.raises(ValueError, match="features must have the shape"):
        v.beeswarm(ROWS, ROWS[:, :2])


def test_series_colours_each_point_of_the_line():
    signal, attribution = np.array([0.0, 1.0, 3.0, 2.0]), np.array([0.0, -1.0, 1.0, 0.5])
    line = v.series(signal, attribution, times=[0, 1, 2, 4], percentile=100).axes[0].collections[0]
    pieces = line.get_segments()
    np.testing.assert_allclose(pieces[1], [[0.5, 0.5], [1, 1], [1.5, 2]])
    np.testing.assert_allclose(pieces[3], [[3, 2.5], [4, 2], [4, 2]])
    grey, blue, red, _ = line.get_colors()
    assert grey[0] == grey[1] == grey[2] < 0.9  # seen on white
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    widths = line.get_linewidths()
    assert widths[0] < widths[3] < widths[1] == widths[2]


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((WAVE, WAVE[:, 1:]), {}, "attribution .* does not fit signal"),
        ((WAVE, WAVE[:2]), {}, "attribution .* does not fit signal"),
        ((WAVE, WAVE), {"names": ["a"]}, "names has 1 strings, but the signal has 3 channels"),
        ((WAVE, WAVE), {"times": [1.0]}, "times must be 60 ascending numbers"),
        ((WAVE, WAVE), {"ax": Figure().add_subplot()}, "ax takes one channel, but the signal has 3"),
        ((np.ones((2, 3, 4)), WAVE), {}, r"signal must be \(C, T\) .* signal\[0\]"),
    ],
)
def test_series_that_do_not_fit(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        v.series(*arguments, **options)


class Spans(HTMLParser):
    """The spans of a coloured text: their style, title and letters; and all letters together."""

    def __init__(self, html):
        super().__init__()
        self.spans, self.letters = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        assert tag in ("div", "span")  # nothing of the tokens has become a tag
        if tag == "span":
            self.spans.append(dict(attrs))

    def handle_data(self, text):
        self.letters += text


def test_tokens_are_escaped_and_their_numbers_shown():
    tokens, scores = ["<script>", '"a"', "&amp;", "b'c"], [1.0, -0.25, 0.0, 0.5]
    html = v.colored_text(tokens, scores)
    parsed = Spans(html)
    assert "<script>" not in html
    assert parsed.letters == " ".join(tokens)
    numbers = ["+1", "−0.25", "0", "+0.5"]
    assert [s["title"] for s in parsed.spans] == [f"{t}: {n}" for t, n in zip(tokens, numbers)]
    assert "background:#ffffff" in parsed.spans[2]["style"]


def test_letters_can_be_read_on_every_colour():
    scores = np.linspace(-1, 1, 101)
    for span in Spans(v.colored_text(["x"] * 101, scores)).spans:
        back, front = (
            luminance([int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)])
            for h in re.findall("#([0-9a-f]{6})", span["style"])
        )
        light, dark = max(back, front), min(back, front)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA


@pytest.mark.parametrize(
    "tokens, text",
    [
        (["fear", "##ed", "it"], "feared it"),
        (["ĠI", "Ġfear", "ed", "Ġit", "."], "I feared it."),
        (["▁I", "▁fear", "ed"], "I feared"),
        (["I", "##", "you"], "I ## you"),
        (["I ", "fear", "ed"], "I feared"),
        (["I", "fear"], "I fear"),
        (["ĠI", "Ċ", "you"], "I\nyou"),
    ],
)
def test_word_pieces_are_joined(tokens, text):
    assert Spans(v.colored_text(tokens, [1.0] * len(tokens))).letters == text


def test_tokens_and_scores_must_match():
    with pytest.raises(ValueError, match="tokens must be 2 strings, one for each score, not 3"):
        v.colored_text(["a", "b", "c"], [1.0, 2.0])
    with pytest.raises(ValueError, match="tokens must be 2 strings"):
        v.text("ab", [1.0, 2.0])


def test_drawn_text_breaks_between_words_within_the_figure():
    figure = v.text(TOKENS, SCORES)
    ax = figure.axes[0]
    figure.draw_without_rendering()
    words = [(t.get_text(), t.xyann) for t in ax.texts]
    assert [w for w, _ in words] == [t.removeprefix("##") for t in TOKENS]
    lines = [y for _, (_, y) in words]
    assert lines == sorted(lines, reverse=True)
    assert len(set(lines)) > 1
    for (_, (x0, y0)), (piece, (x1, y1)) in pairwise(words):
        if piece == "ed":
            assert y0 == y1
            assert x1 > x0


@pytest.mark.filterwarnings("error")
def test_a_word_longer_than_the_figure_does_not_spoil_the_layout():
    v.text(["the", "a" * 200, "b"], [0.0, 1.0, 2.0]).draw_without_rendering()


def test_a_curve_of_rows_with_fractions_of_their_own():
    curve = v.curve
    fractions = np.array([[0.0, 0.5, 1.0], [0.0, 0.25, 1.0]])
    scores = np.array([[2.0, 1.0, 0.0], [4.0, 1.0, 0.0]])
    (line,) = curve(fractions, scores).get_axes()[0].get_lines()
    assert line.get_xdata().tolist() == [0, 0.25, 0.5, 1]
    assert line.get_ydata().tolist() == pytest.approx([3, (1.5 + 1) / 2, (1 + 2 / 3) / 2, 0])
    repeated = curve([0.0, 0.5, 0.5, 1.0], [2.0, 1.0, 1.0, 0.0])  # as where few features are shared out
    assert repeated.get_axes()[0].get_legend().get_texts()[0].get_text().endswith("1.000")
    half = curve([0.5, 1.0], [2.0, 0.0]).get_axes()[0].get_legend().get_texts()[0].get_text()
    assert half.endswith("1.000")  # the mean height, as Curve.auc
    with pytest.raises(ValueError, match="fractions must be"):
        curve([0.5, 0.0], [1.0, 1.0])
