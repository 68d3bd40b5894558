"""Pictures of explanations: the numbers that are read back from the figure are the attributions."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import torchwhy as tw
from torchwhy import visualize as v

W = torch.tensor([1.0, 2.0, 3.0, 4.0])
CORNERS = (torch.arange(8) // 4)[:, None] * 2 + torch.arange(8) // 4
NAMES = ["age", "emp=a", "emp=b", "emp=c"]


def linear(x):
    return x @ W


def corner(x):
    return 10 * x[:, :, :4, :4].mean((1, 2, 3))


def bars_of(figure):
    ax = figure.axes[0]
    return dict(zip([t.get_text() for t in ax.get_yticklabels()], [float(p.get_width()) for p in ax.patches]))


def ticks(ax):
    labels = (
        ax.get_yticklabels() if ax.get_yticks().size and ax.get_yticklabels()[0].get_text() else ax.get_xticklabels()
    )
    return [float(t.get_text().replace("−", "-")) for t in labels]


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.images and ax.get_title()]


# ---- tables


def test_a_group_of_columns_is_one_bar_and_bars_add_up():
    e = tw.KernelSHAP(linear).explain(torch.ones(1, 4), feature_mask=torch.tensor([0, 1, 1, 1]))
    assert bars_of(e.plot()) == pytest.approx({"feature 1": 9.0, "feature 0": 1.0})
    assert bars_of(e.plot(names=NAMES)) == pytest.approx({"emp=a, emp=b, emp=c": 9.0, "age": 1.0})
    assert sum(bars_of(e.plot(names=["age", "emp"])).values()) == pytest.approx(float(e.scores - e.base_scores))
    assert bars_of(v.bars(e, ["age", "emp"])) == pytest.approx({"emp": 9.0, "age": 1.0})


def test_the_sum_of_the_others_is_of_features_not_of_columns():
    mask = torch.tensor([0, 1, 1, 1])
    figure = tw.FeatureAblation(linear).explain(torch.ones(1, 4), feature_mask=mask).plot(top=1)
    assert bars_of(figure) == pytest.approx({"feature 1": 9.0, "the other one": 1.0})


def test_the_row_that_is_shown_is_named():
    x = torch.arange(12.0).view(3, 4)
    e = tw.FeatureAblation(linear).explain(x)
    for row, figure in [(0, e.plot()), (2, e.plot(row=2)), (2, e.plot(row=-1))]:
        assert figure.axes[0].get_title() == f"FeatureAblation · row {row} of 3"
        assert sorted(bars_of(figure).values()) == pytest.approx(sorted((x[row] * W).tolist()))
    assert e[1].plot().axes[0].get_title() == "FeatureAblation"
    with pytest.raises(IndexError, match="row 3"):
        tw.Explanation(attributions=torch.ones(3, 1, 4, 4)).plot(row=3)


def test_the_class_and_its_probability_are_named():
    net, x = nn.Linear(4, 2), torch.rand(2, 4)
    e = tw.Saliency(net).explain(x, [1, 0]).with_names(classes=["no", "yes"])
    p = float(net(x).detach().softmax(1)[1, 0])
    assert e.plot(row=1).axes[0].get_title() == f"Saliency · row 1 of 2 · no, p = {p:.2g}"


def test_numbers_have_digits_of_their_own():
    texts = [t.get_text() for t in v.bars([2.0, 1e-4, -0.612], errors=[0.1, 1e-5, 4e-4]).axes[0].texts]
    assert texts == ["+2.00 ± 0.10", "−0.6120 ± 0.0004", "+0.00010 ± 0.00001"]


def test_bars_take_a_mapping_of_names():
    assert bars_of(v.bars({"a": 1.0, "b": -2.0})) == {"b": -2.0, "a": 1.0}


def test_standard_errors_are_those_of_the_features():
    net, x = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 1)), torch.rand(1, 4)
    e = tw.KernelSHAP(net, n_samples=8, generator=0).explain(x, feature_mask=torch.tensor([0, 1, 2, 2]))
    ends = np.concatenate(e.plot().axes[0].collections[0].get_segments())[:, 0].reshape(-1, 2)
    order = (-e.features()[0].abs()).argsort()
    np.testing.assert_allclose(
        (ends[:, 1] - ends[:, 0]) / 2, np.array([float(e.standard_error[0, [0, 1, 2][i]]) for i in order]), rtol=1e-4
    )


# ---- images


@functools.cache
def corner_explanations():
    return list(explain_the_corner())


def explain_the_corner():
    x = torch.ones(1, 3, 8, 8)
    shape = (3, 4, 4)
    yield tw.FeatureAblation(corner).explain(x, feature_mask=CORNERS)
    yield tw.KernelSHAP(corner).explain(x, feature_mask=CORNERS)
    yield tw.Occlusion(corner, sliding_window_shapes=shape, strides=shape).explain(x)
    yield tw.FeatureAblation(corner).explain(x)  # each channel by itself: 48 elements share 10
    yield tw.FeatureAblation(corner).explain(x, feature_mask=CORNERS + 4 * torch.arange(3)[:, None, None])
    yield tw.Occlusion(corner, sliding_window_shapes=(1, 4, 4), strides=(1, 4, 4)).explain(x)
    yield tw.InputXGradient(corner).explain(x)


@pytest.mark.parametrize("number", range(7))
def test_a_value_on_several_channels_counts_once(number):
    e = corner_explanations()[number]
    shares = e.method == "InputXGradient" or number == 3
    expected = torch.zeros(8, 8)
    expected[:4, :4] = 10 / 16 if shares else 10
    torch.testing.assert_close(e.maps[0, 0], expected)
    for figure in (e.overlay(), v.heatmap(e), v.overlay(e.inputs[0], e)):
        assert ticks(figure.axes[1])[-1] == pytest.approx(float(expected.max()), rel=0.01)
    assert ticks(e.plot().axes[-1])[-1] == pytest.approx(float(expected.max()), rel=0.01)
    np.testing.assert_allclose(np.asarray(v.heatmap(e).axes[0].images[0].get_array()), expected.numpy(), rtol=1e-5)


def test_masks_of_each_row_are_counted_by_the_row():
    masks = torch.stack([CORNERS.expand(3, 8, 8), CORNERS + 4 * torch.arange(3)[:, None, None]])
    e = tw.FeatureAblation(corner).explain(torch.ones(2, 3, 8, 8), feature_mask=masks)
    torch.testing.assert_close(e.maps[:, 0, 0, 0], torch.tensor([10.0, 10.0]))


def rise_of_classes(classes=3, **options):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, classes, bias=False)).eval()
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[0, :32], net[1].weight[1, 32:] = 1, 1
    method = tw.RISE(net, n_samples=400, targets="all", generator=0)
    return method.explain(torch.ones(2, 1, 8, 8), target=0, **options)


def test_classes_have_a_panel_each_on_one_scale():
    e = rise_of_classes()
    figure = e.plot(overlay=False)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in panels[:4]] == ["row 0", "RISE · class 0", "class 1", "class 2"]
    limit = max(np.percentile(np.abs(e.shown[i, c].numpy()), 99) for i in range(2) for c in range(2))
    assert ticks(figure.axes[-1])[-1] == pytest.approx(limit, rel=0.01)
    from torchwhy.visualize import drawing

    for c in (0, 1):
        unit = np.clip(e.shown[0, c].numpy() / limit, 0, 1)
        np.testing.assert_allclose(
            np.asarray(panels[1 + c].images[0].get_array()), drawing.to_rgb(unit, False), atol=1 / 256
        )
    named = e.with_names(classes=["up", "down", "none"]).plot()
    assert "down" in titles(named)
    many = rise_of_classes(40).plot()
    assert "6 of 40 classes" in titles(many)[1]


def test_what_is_rounding_is_drawn_as_nothing_and_said():
    e = rise_of_classes()
    assert float(e.shown[:, 2].abs().max()) <= float(e.rounding.max())
    noise = e.shown.clone()
    noise[:, 2] = 2e-6 * torch.randn(2, 8, 8)
    e = tw.Explanation(
        attributions=noise, inputs=e.inputs, rounding=e.rounding, details={"neutral": torch.zeros(2, 3)}, method="RISE"
    )
    panel = e.plot(overlay=False).axes[3]
    assert (np.asarray(panel.images[0].get_array()) == 1).all()
    assert [t.get_text() for t in panel.texts] == ["all 0"]
    assert "rounding" in panel.get_xlabel()
    assert "rounding" not in e.plot(overlay=False).axes[1].get_xlabel()


def test_rounding_is_that_of_the_scores_and_of_differences_of_them_alone():
    x = torch.ones(2, 4) * torch.tensor([[1.0], [100.0]])
    e = tw.FeatureAblation(linear).explain(x)
    torch.testing.assert_close(e.rounding, 8 * torch.finfo(torch.float).eps * e.scores)
    assert tw.Saliency(linear).explain(x).rounding is None
    assert tw.IntegratedGradients(linear).explain(x).rounding is None


def test_bars_of_rounding_have_no_length_and_it_is_said():
    e = tw.Explanation(attributions=torch.tensor([[1e-7, 3.0]]), rounding=torch.tensor([1e-5]), method="any")
    figure = e.plot()
    assert bars_of(figure) == {"feature 1": 3.0, "feature 0": 0.0}
    assert figure.axes[0].get_xlabel() == "attribution (up to 1e-05 is the score's rounding, drawn as 0)"


def test_a_map_of_zeros_says_so():
    for figure in (v.heatmap(np.zeros((4, 4))), v.grid({"a": np.zeros((4, 4))})):
        ax = figure.axes[0]
        assert [t.get_text() for t in ax.texts] == ["all 0"]
        assert (np.asarray(ax.images[0].get_array()) == 1).all()
    assert not v.heatmap(np.eye(4)).axes[0].texts


@pytest.mark.parametrize(("n", "columns"), [(2, 2), (6, 4), (16, 6), (40, 6)])
def test_many_images_stand_in_several_columns(n, columns):
    e = tw.Explanation(attributions=torch.rand(n, 1, 4, 4), inputs=torch.rand(n, 3, 4, 4), method="IG")
    figure = e.plot()
    panels = [ax.get_position() for ax in figure.axes if ax.images and ax.get_images()[0].get_array().shape[0] == 4]
    assert len({round(p.x0, 4) for p in panels}) == columns
    assert len(panels) == 2 * min(n, 16)
    rows = [t for t in titles(figure) if t.startswith("row")]
    assert rows == [f"row {i}" for i in range(min(n, 16))]
    assert ("16 of 40" in str(titles(figure))) == (n == 40)


def test_grids_take_explanations():
    x = torch.rand(2, 3, 8, 8)
    e = tw.FeatureAblation(corner).explain(x, feature_mask=CORNERS)
    mine = v.grid({"a": e}, images=x, shared_scale="absolute")
    theirs = v.grid({"a": e.maps}, images=x, shared_scale="absolute")
    for a, b in zip(mine.axes[:4], theirs.axes[:4], strict=True):
        assert np.array_equal(a.images[0].get_array(), b.images[0].get_array())
    with pytest.raises(ValueError, match="several tensors"):
        v.heatmap(tw.Explanation(attributions=(torch.ones(1, 2), torch.ones(1, 2))))
    assert np.asarray(e).shape == (2, 3, 8, 8)


# ---- the photo under the map


PHOTO = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
MAP = torch.zeros(6, 6)
MAP[1:3, 1:3] = 2.0
MAP[4, 4] = -1.0


def test_the_photo_keeps_its_colours():
    drawn = np.asarray(v.heatmap(MAP, image=PHOTO, photo="colour").axes[0].images[0].get_array())
    np.testing.assert_allclose(drawn[0, 0], PHOTO[:, 0, 0].numpy())  # 0 leaves the photo
    grey = np.asarray(v.heatmap(MAP, image=PHOTO).axes[0].images[0].get_array())
    assert np.ptp(grey[0, 0]) < 1e-6 < np.ptp(drawn[0, 0])
    np.testing.assert_allclose(v.blend(PHOTO, MAP, photo="colour"), drawn)


@pytest.mark.parametrize(("style", "background"), [("mask", 0.0), ("alpha", 1.0)])
def test_the_photo_is_seen_where_the_map_is_large(style, background):
    figure = v.heatmap(MAP, image=PHOTO, style=style, percentile=100)
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    share = MAP.abs()[..., None].numpy() / 2
    np.testing.assert_allclose(drawn, share * PHOTO.permute(1, 2, 0).numpy() + (1 - share) * background, atol=1e-6)
    assert ticks(figure.axes[1]) == [0, 1, 2]


def test_contours_run_at_half_and_three_quarters():
    ax = v.heatmap(MAP, image=PHOTO, style="contour", percentile=100).axes[0]
    (lines,) = [c for c in ax.collections if hasattr(c, "levels")]
    assert list(lines.levels) == [1.0, 1.5]  # −1 is the smallest value: nothing runs around it


@pytest.mark.parametrize(
    ("sign", "expected"), [("positive", (2, 0)), ("negative", (0, -1)), ("absolute", (2, 1)), ("all", (2, -1))]
)
def test_one_sign_can_be_drawn(sign, expected):
    shown = np.asarray(v.heatmap(MAP, sign=sign).axes[0].images[0].get_array())
    assert (shown[1, 1], shown[4, 4]) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"style": "glow", "image": PHOTO}, "style must be one of blend, contour, mask, alpha"),
        ({"style": "mask"}, "give image="),
        ({"photo": "sepia", "image": PHOTO}, "photo must be 'grey' or 'colour'"),
        ({"sign": "both"}, "sign must be one of"),
    ],
)
def test_ways_to_draw_that_there_are_not(options, said):
    with pytest.raises(ValueError, match=said):
        v.heatmap(MAP, **options)


# ---- volumes, series, spectrograms


def test_slices_share_one_scale():
    volume = torch.zeros(10, 4, 4) + torch.arange(10.0).view(-1, 1, 1)
    figure = v.slices(volume, at=[1, 5, 9], percentile=100)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["slice 1", "slice 5", "slice 9"]
    assert ticks(figure.axes[-1])[-1] == 9
    from torchwhy.visualize import drawing

    for ax, i in zip(figure.axes, (1, 5, 9)):
        shade = drawing.to_rgb(np.array([i / 9]), False)[0]
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array())[0, 0], shade, atol=1e-6)
    other = v.slices(volume, axis=2, at=[0], unit="frame")
    assert other.axes[0].get_title() == "frame 0"
    assert other.axes[0].images[0].get_array().shape[:2] == (10, 4)
    with pytest.raises(IndexError, match="slice 10 is not there; there are 10"):
        v.slices(volume, at=[10])


def test_slices_are_of_one_row():
    batch = torch.arange(32.0).view(2, 1, 4, 2, 2)
    one, same = (v.slices(t, at=[1]) for t in (batch[:1], batch[0]))
    np.testing.assert_array_equal(*(f.axes[0].images[0].get_array() for f in (one, same)))
    with pytest.raises(ValueError, match="give one row of it"):
        v.slices(batch, at=[1])


def test_explanations_of_volumes_are_slices_of_a_row():
    a = torch.rand(2, 2, 30, 4, 4)
    e = tw.Explanation(attributions=a, inputs=torch.rand(2, 1, 30, 4, 4), method="IG")
    figure = e.plot(row=1, percentile=100)
    assert len([ax for ax in figure.axes if ax.get_title().startswith("slice")]) == 12
    assert ticks(figure.axes[-1])[-1] == pytest.approx(float(a[1].sum(0).max()), rel=0.01)


def test_series_of_many_channels_are_one_matrix():
    a = torch.randn(2, 200, 3)
    figure = tw.Explanation(attributions=a, inputs=torch.randn(2, 200, 3), method="IG").plot(row=1)
    assert len(figure.axes) == 2  # with the colour bar
    np.testing.assert_allclose(np.asarray(figure.axes[0].images[0].get_array()), a[1].numpy(), rtol=1e-6)
    assert max(figure.get_size_inches()) < 10
    few = v.series(torch.randn(32, 5), torch.randn(32, 5))
    assert len(few.axes) == 33
    assert len(v.series(torch.randn(33, 5), torch.randn(33, 5)).axes) == 2


def test_a_spectrogram_has_its_axes():
    a = torch.randn(5, 7)
    f, t = np.array([0.0, 10, 20, 40, 80]), np.linspace(0, 3, 7)
    figure = v.spectrogram(a, a.abs(), times=t, frequencies=f, ylabel="Hz")
    top, below = figure.axes[:2]
    np.testing.assert_allclose(np.asarray(below.collections[0].get_array()).reshape(5, 7), a.numpy(), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(top.collections[0].get_array()).reshape(5, 7), a.abs().numpy(), rtol=1e-6)
    low, high = below.get_ylim()
    assert low < 10 < 80 < high
    assert below.get_ylabel() == "Hz"
    with pytest.raises(ValueError, match="frequencies must be 5 ascending numbers, one for each of the bins"):
        v.spectrogram(a, frequencies=[1, 2])


@pytest.mark.parametrize("columns", [3, 12, 22])
def test_numbers_of_a_matrix_lie_beside_one_another(columns):
    a = np.linspace(-0.32, 0.0027, 2 * columns).reshape(2, columns)
    figure = v.matrix(a, ["Madrid", "."], [f"word {i}" for i in range(columns)])
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == a.size
    for left, right in pairwise(boxes[:columns]):
        assert left.x1 < right.x0
    assert not v.matrix(np.ones((2, 40))).axes[0].texts  # there is no room


def test_a_matrix_has_its_names_and_numbers():
    a = np.array([[1.0, -2.0, 0.0], [0.5, 0.25, 4.0]])
    ax = v.matrix(a, ["x", "y"], ["p", "q", "r"], percentile=100).axes[0]
    np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), a)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x", "y"]
    assert [t.get_text() for t in ax.texts] == ["+1", "−2", "0", "+0.5", "+0.25", "+4"]
    assert ax.images[0].get_clim() == (-4, 4)
    with pytest.raises(ValueError, match="rows has 1 strings, but the matrix has 2 rows"):
        v.matrix(a, ["x"])


# ---- texts and several tensors


def test_texts_keep_their_order():
    words = ["the", "film", "was", "not", "as", "bad"]
    e = tw.Explanation(attributions=torch.randn(2, 6, 8), inputs=torch.randint(9, (2, 6)), method="IG")
    assert [t.get_text() for t in e.plot().axes[0].texts] == [str(i) for i in e.inputs[0].tolist()]
    named = e.with_names([words, words[::-1]]).plot(row=1)
    assert [t.get_text() for t in named.axes[0].texts] == words[::-1]
    limit = float(e.attributions[1].sum(1).abs().max())
    assert ticks(named.axes[1]) == pytest.approx([-limit, 0, limit], rel=0.01)


def test_several_texts_are_one_table_on_one_scale():
    html = v.text_table(
        [["a", "<b>"], ["c"]], [[1.0, -4.0], [2.0]], facts={"label": ["<i>", "no"], "p": [0.12345, 1.0]}
    )
    assert "&lt;i&gt;" in html
    assert "<b>" not in html
    assert "<td>0.123</td>" in html
    single = v.colored_text(["c"], [2.0], limit=4.0)
    assert single in html
    with pytest.raises(ValueError, match="p has 1 entries, but there are 2 texts"):
        v.text_table([["a"], ["b"]], [[1.0], [2.0]], facts={"p": [1]})
    with pytest.raises(ValueError, match="not lists of them; text_table"):
        v.text([["a", "b"], ["c"]], [[1, 2], [3]])


def test_several_tensors_stand_side_by_side():
    image, age, blood = torch.rand(2, 1, 4, 4), torch.tensor([[0.3], [1.0]]), torch.rand(2, 3)
    e = tw.Explanation(attributions={"image": image, "age": age, "blood": blood}, method="IG")
    figure = e.plot(row=1)
    np.testing.assert_allclose(np.asarray(figure.axes[0].images[0].get_array()), image[1, 0].numpy())
    bars = dict(
        zip([t.get_text() for t in figure.axes[1].get_yticklabels()], [p.get_width() for p in figure.axes[1].patches])
    )
    assert bars["age"] == 1.0
    assert {n for n in bars if n.startswith("blood")} == {"blood, 0", "blood, 1", "blood, 2"}
    assert "row 1 of 2" in figure.get_suptitle()
    plain = tw.Explanation(attributions=(age, blood), method="IG")
    assert bars_of(plain.plot())["input 0"] == pytest.approx(0.3)


# ---- curves


def test_bands_of_probabilities_stay_within_their_bounds():
    net, x = nn.Linear(6, 3), torch.randn(3, 6)
    e = tw.Saliency(net).explain(x, 1)
    curve = tw.metrics.insertion(net, x, e, 1, softmax=True)
    ax = v.curve(curve).axes[0]
    edge = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert 0 <= edge.min() <= edge.max() <= 1
    np.testing.assert_allclose(ax.lines[0].get_ydata(), curve.scores.mean(0).numpy())
    assert ax.get_xlabel() == "fraction of the input shown"
    logits = tw.metrics.deletion(net, x, e, 1)
    assert logits.bounds is None
    assert v.curve({"a": logits}).axes[0].get_xlabel() == "fraction of the input replaced"
    wide = v.curve([0.0, 1.0], [[0.1, 0.0], [0.9, 1.0]], bounds=(0, 1)).axes[0].collections[0].get_paths()[0].vertices
    assert (wide[:, 1].min(), wide[:, 1].max()) == (0, 1)
    with pytest.raises(ValueError, match="expected numbers, or curves in the place of fractions; got a list"):
        v.curve([0.0, 1.0])


def test_units_of_a_text_are_a_text_and_rows_of_numbers_are_bars():
    units = [["the", "film"], ["was", "bad"]]
    e = tw.Explanation(
        attributions=torch.randn(2, 2), inputs=torch.randint(9, (2, 5)), names=units, method="KernelSHAP"
    )
    assert [t.get_text() for t in e[1].plot().axes[0].texts] == ["was", "bad"]
    numbers = tw.Explanation(attributions=torch.tensor([[1.0, 2.0]]), inputs=torch.rand(1, 2), names=[["age", "bmi"]])
    assert bars_of(numbers.plot()) == {"bmi": 2.0, "age": 1.0}
    assert bars_of(tw.Explanation(attributions=torch.ones(1, 2), inputs=torch.ones(1, 2).long()).plot()).keys() == {
        "feature 0", "feature 1",
    }  # fmt: skip
