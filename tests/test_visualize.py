"""The pictures: the numbers behind the colours, the colours on the page, and what is left behind."""

import io
import re
from contextlib import contextmanager
from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from pictures import CAT, EDGES, FIGURES, ON_AXES, SIGNED, drawn, luminance, pixel, rng, same
from PIL import Image

from torchwhy import visualize as v
from torchwhy.visualize import panels
from torchwhy.visualize.gallery import before_after_images


def percentile_by_hand(values, q):
    ordered = sorted(abs(x) for x in values)
    at = q / 100 * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


@pytest.mark.parametrize("q", [50, 90, 99, 100])
def test_normalize_divides_by_the_percentile_and_clips(q):
    values = rng.standard_normal(101)
    p = percentile_by_hand(values, q)
    expected = [max(-1.0, min(1.0, x / p)) for x in values]
    np.testing.assert_allclose(v.normalize(values, q), expected, rtol=1e-14)


def test_one_outlier_does_not_hide_the_rest():
    values = np.append(np.ones(999), 1e6)
    assert v.normalize(values).min() == 1


def test_normalize_of_degenerate_maps():
    assert (v.normalize(np.zeros((4, 4))) == 0).all()
    assert (v.normalize(np.full((4, 4), 3.0)) == 1).all()
    assert (v.normalize(np.full((4, 4), -3.0)) == -1).all()
    assert (v.normalize(np.full((4, 4), -3.0), signed=False) == 0).all()
    sparse = np.zeros(1000)
    sparse[:2] = 2, -1  # the 99th percentile is 0
    np.testing.assert_array_equal(v.normalize(sparse)[:3], [1, -0.5, 0])
    with np.errstate(all="raise"):
        assert v.normalize([1e-320, 1e-320, 1.0], percentile=50).tolist() == [1, 1, 1]


def test_signed_is_found_in_the_data_unless_told():
    positive, noise = np.array([0.0, 0.5, 1.0]), np.array([-1e-9, 0.5, 1.0])
    assert v.normalize(noise, 100).min() == 0  # rounding, not a sign
    assert v.normalize(noise, 100, signed=True).min() < 0
    assert v.normalize([-0.1, 0.5, 1.0], 100).min() == -0.1
    np.testing.assert_array_equal(v.normalize([-4.0, 0.5, 1.0], 100, signed=False), [0, 0.5, 1])
    np.testing.assert_array_equal(v.normalize(positive, 100), positive)


@pytest.mark.parametrize("percentile", [0, -1, 101, float("nan")])
def test_percentile_outside_its_range(percentile):
    with pytest.raises(ValueError, match="percentile must be in"):
        v.normalize([1.0], percentile)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["normalize", "blend", "grid", *ON_AXES])
def test_nan_is_refused_by_name(kind, bad):
    function = {"normalize": v.normalize, "blend": lambda x: v.blend(np.ones((1, 2, 2)), x)}
    function = {**ON_AXES, **function, "grid": lambda x: v.grid({"a": x})}[kind]
    with pytest.raises(ValueError, match=r"has \d NaN or infinite values of \d"):
        function(np.array([[1.0, bad], [1.0, 1.0]]))


def test_channels_are_joined_as_said():
    a = rng.standard_normal((3, 2, 4))
    for u, w in np.ndindex(2, 4):
        column = [a[c, u, w] for c in range(3)]
        assert v.to_map(a)[u, w] == pytest.approx(sum(column))
        assert v.to_map(a, "max")[u, w] == max(abs(x) for x in column)
        assert v.to_map(a, "norm")[u, w] == pytest.approx(sum(x * x for x in column) ** 0.5)
    np.testing.assert_array_equal(v.to_map(a[None]), v.to_map(a))
    with pytest.raises(ValueError, match="'sum', 'max' or 'norm', not 'mean'"):
        v.to_map(a, "mean")


@pytest.mark.parametrize("shape, hint", [((2, 3, 4, 4), r"attribution\[0\]"), ((4,), ""), ((1, 1, 1, 4, 4), "")])
def test_wrong_shapes_are_named(shape, hint):
    with pytest.raises(ValueError, match=rf"attribution must be \(C, H, W\).*{re.escape(str(shape))}.*{hint}"):
        v.heatmap(np.ones(shape))


def test_a_name_of_the_version_before_warns():
    with pytest.warns(DeprecationWarning, match="as_photo"):
        assert v.photo is v.as_photo
    with pytest.raises(AttributeError, match="'heatmaps'"):
        _ = v.heatmaps


def test_photo_takes_any_range():
    floats = rng.random((3, 4, 5))
    np.testing.assert_array_equal(v.as_photo(floats), floats.transpose(1, 2, 0))
    np.testing.assert_allclose(v.as_photo((CAT * 255).astype(np.uint8)), CAT.transpose(1, 2, 0), atol=1 / 255)
    np.testing.assert_allclose(v.as_photo(torch.tensor([[[0, 51]]], dtype=torch.uint8))[0, :, 0], [0, 0.2])
    normed = v.as_photo(floats * 4 - 2)
    assert normed.min() == 0
    assert normed.max() == 1
    assert (v.as_photo(np.full((1, 2, 2), 7.0)) == 0.5).all()
    assert v.as_photo(np.ones((1, 1, 4, 5))).shape == v.as_photo(np.ones((4, 5))).shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"\(4, 5, 3\); .permute\(2, 0, 1\) would do"):
        v.as_photo(floats.transpose(1, 2, 0))


def test_grey_is_the_brightness_lifted():
    np.testing.assert_allclose(v.grey(np.array([1.0, 0.0, 0.0]).reshape(3, 1, 1)), 0.2 + 0.8 * 0.2126)
    np.testing.assert_allclose(v.grey(np.ones((3, 1, 1))), 1)


def test_zero_is_white_wherever_the_values_lie():
    figure = v.signed_map([[-1.0, 0.0, 10.0]], percentile=100)
    ax = figure.axes[0]
    np.testing.assert_array_equal(pixel(figure, ax, 1, 0), [1, 1, 1])
    blue, red = pixel(figure, ax, 0, 0), pixel(figure, ax, 2, 0)
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert ax.images[0].get_clim() == (-10, 10)


@pytest.mark.parametrize("cmap", [None, "RdBu_r", "coolwarm"])
def test_zero_is_the_middle_of_any_map(cmap):
    figure = v.heatmap([[-1.0, 0.0, 3.0]], cmap=cmap, percentile=100)
    expected = (1, 1, 1) if cmap is None else matplotlib.colormaps[cmap].resampled(257)(128)[:3]
    np.testing.assert_allclose(pixel(figure, figure.axes[0], 1, 0), expected, atol=1 / 255)


def test_positive_maps_start_black_and_keep_their_unit():
    figure = v.heatmap([[0.0, 2.0], [2.0, 4.0]], percentile=100)
    assert figure.axes[0].images[0].get_clim() == (0, 4)
    assert luminance(pixel(figure, figure.axes[0], 0, 0)) < 0.001 < luminance(pixel(figure, figure.axes[0], 1, 0))
    assert [t.get_text() for t in figure.axes[1].get_yticklabels()] == ["0", "2", "4"]


@pytest.mark.parametrize("shape, below", [((4, 20), True), ((20, 20), False), ((20, 4), False)])
def test_the_colour_bar_lies_where_there_is_room(shape, below):
    figure = v.heatmap(rng.random(shape))
    figure.draw_without_rendering()
    shown, bar = (ax.get_window_extent() for ax in figure.axes)
    assert (bar.y1 < shown.y0) == below
    assert (bar.x0 > shown.x1) != below


@pytest.mark.parametrize("signed", [None, True])
def test_a_map_of_zeros_leaves_the_grey_photo(signed):
    grey = np.repeat(v.grey(CAT)[..., None], 3, -1)
    np.testing.assert_array_equal(v.blend(CAT, np.zeros((1, 5, 7)), signed=signed), grey)
    figure = v.overlay(CAT, np.zeros((1, 75, 113)), signed=signed)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), grey)


def test_the_largest_value_has_the_full_colour_at_the_given_opacity():
    dark = np.zeros((1, 1, 3))  # grey 0.2
    end = np.array(matplotlib.colormaps["viridis"](1.0)[:3])
    pixels = v.blend(dark, [[0.0, 1.0, 1.0]], alpha=0.5, percentile=100, cmap="viridis")
    np.testing.assert_allclose(pixels[0, 1], 0.5 * 0.2 + 0.5 * end, atol=1e-12)
    np.testing.assert_allclose(v.blend(dark, [[0.0, 1.0, 1.0]], alpha=0), 0.2)
    with pytest.raises(ValueError, match="alpha must be in"):
        v.blend(dark, [[0.0, 1.0, 1.0]], alpha=1.1)


def test_overlay_shows_what_blend_returns():
    figure = v.overlay(CAT, SIGNED, alpha=0.7)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), v.blend(CAT, SIGNED, 0.7))
    figure = v.heatmap(SIGNED, CAT, alpha=0.7)  # the map first, then its image
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), v.blend(CAT, SIGNED, 0.7))


def test_small_maps_are_interpolated_bilinearly():
    small, image = rng.random((2, 3)), np.ones((1, 6, 9))
    large = np.zeros((6, 9))
    for u, w in np.ndindex(6, 9):
        y, x = np.clip((u + 0.5) / 3 - 0.5, 0, 1), np.clip((w + 0.5) / 3 - 0.5, 0, 2)
        i, j = min(int(y), 0), min(int(x), 1)
        top = small[i, j] * (1 - (x - j)) + small[i, j + 1] * (x - j)
        foot = small[i + 1, j] * (1 - (x - j)) + small[i + 1, j + 1] * (x - j)
        large[u, w] = top * (1 - (y - i)) + foot * (y - i)
    np.testing.assert_allclose(v.blend(image, small), v.blend(image, large), atol=1e-12)
    with pytest.raises(ValueError, match="more than its image"):
        v.overlay(np.ones((1, 2, 2)), np.ones((4, 4)))


def test_the_ends_differ_for_readers_without_red_or_green_cones():
    figure = v.signed_map([[-1.0, 1.0]], percentile=100)
    blue, red = (pixel(figure, figure.axes[0], x, 0) for x in (0, 1))
    # Machado, Oliveira and Fernandes (2009), severity 1: what is left of a colour without red, and without green cones
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    for cones in (protan, deutan):
        assert np.linalg.norm(np.array(cones) @ (blue - red)) > 0.4


def test_unknown_colours_are_refused():
    with pytest.raises(ValueError, match="cmap 'rainbows' is not a colour map"):
        v.heatmap(EDGES, cmap="rainbows")


@contextmanager
def nothing_global_is_changed():
    from matplotlib import pyplot

    settings = dict(matplotlib.rcParams)
    backend = matplotlib.get_backend()
    yield
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.get_backend() == backend


def test_writing_a_file_changes_nothing_global():
    with nothing_global_is_changed():
        assert v.to_png(FIGURES["grid"](same), dpi=60)


@pytest.fixture(scope="module", params=FIGURES)
def of_arrays(request):
    """A kind of picture, drawn once: its name, the pixels, where each text lies, and the figure."""
    boxes, draw = {}, Text.draw

    def watched(text, renderer):
        draw(text, renderer)
        if text.get_visible() and text.get_text().strip():
            boxes[text] = Text.get_window_extent(text, renderer)

    figure = FIGURES[request.param](lambda a: torch.tensor(a).bfloat16().double().numpy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", watched)
        return request.param, drawn(figure), boxes, figure


def test_text_lies_within_the_figure_and_none_on_another(of_arrays):
    _, pixels, boxes, _ = of_arrays
    height, width, _ = pixels.shape
    assert boxes
    for text, box in boxes.items():
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text} leaves the figure: {box} of {width} x {height}"
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        assert not a.padded(-1.5).overlaps(b.padded(-1.5)), f"{one} lies on {other}"


def take_places(figure, like):
    """Put the axes where those of a drawn figure lie, in the place of a layout of its own: half of what drawing takes."""
    figure.set_layout_engine("none")
    for ax, other in zip(figure.axes, like.axes, strict=True):
        for which in ("original", "active"):
            ax.set_position(other.get_position(which == "original"), which)


# the other pictures of a function read their arrays as its first one does
OF_EACH_FUNCTION = [
    pytest.param(kind, marks=pytest.mark.slow if "," in kind or kind == "clusters of maps" else ()) for kind in FIGURES
]


@pytest.mark.parametrize("of_arrays", OF_EACH_FUNCTION, indirect=True)
def test_tensors_of_half_precision_with_a_gradient_are_drawn_as_arrays_are(of_arrays):
    kind, pixels, _, other = of_arrays
    with nothing_global_is_changed():
        figure = FIGURES[kind](lambda a: torch.tensor(a).bfloat16().requires_grad_())
        assert isinstance(figure, Figure)
        take_places(figure, other)
        np.testing.assert_array_equal(drawn(figure), pixels)


@pytest.mark.parametrize("kind", ON_AXES)
def test_given_axes_are_drawn_on(kind):
    figure = Figure(figsize=(8, 4))
    ax, other = figure.subplots(1, 2)
    assert ON_AXES[kind](np.array([[1.0, 2.0], [3.0, 4.0]]), ax=ax) is figure
    assert ax.has_data() or ax.texts
    assert not other.has_data()


@pytest.mark.parametrize("attribution", [SIGNED, EDGES])
def test_arguments_are_left_as_they_were(attribution):
    a, image = attribution.copy(), CAT.copy()
    v.overlay(image, a)
    v.grid({"a": a}, images=image)
    np.testing.assert_array_equal(a, attribution)
    np.testing.assert_array_equal(image, CAT)


def test_notebooks_and_pages_show_a_figure():
    figure = v.heatmap(EDGES)
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    drawn_width = Image.open(io.BytesIO(png)).width
    assert drawn_width == pytest.approx(1.6 * size["width"], abs=2)
    html = v.to_html(figure, alt='a "map" & more')
    assert 'alt="a &quot;map&quot; &amp; more"' in html
    assert "data:image/png;base64,iVBOR" in html


def test_what_became_of_an_image_is_drawn_in_its_range():
    """The darkest of both is black and the brightest white, one range for all."""
    before = np.full((1, 1, 2, 2), 0.5) + np.array([[0.0, 0.1], [0.2, 0.3]])
    after = before + np.array([[0.1, 0.0], [0.0, 0.4]])
    figure = before_after_images({"counterfactual": after, "change": after - before}, before, ["one"])
    shown = [ax.images[0].get_array()[..., 0] for ax in figure.axes[:2]]
    np.testing.assert_allclose(shown[0], (before[0, 0] - 0.5) / 0.7, atol=1e-6)
    np.testing.assert_allclose(shown[1], (after[0, 0] - 0.5) / 0.7, atol=1e-6)


@pytest.mark.parametrize("bars", [1, 2, 3])
def test_colour_bars_stand_side_by_side_in_the_foot(bars):
    figure = Figure(figsize=(6, 4))
    boxes = [panels.axes_below(figure, 0.5, i, bars).get_position() for i in range(bars)]
    middles = [(box.x0 + box.x1) / 2 for box in boxes]
    np.testing.assert_allclose(middles, [(i + 0.5) / bars for i in range(bars)])
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert all(0 < box.y0 < box.y1 < 0.5 / 4 for box in boxes)
