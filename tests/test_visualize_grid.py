"""The grid of methods by images: what its scale shares, where its panels lie, what it refuses."""

import numpy as np
import pytest
from pictures import CAT, EDGES, MAPS, SIGNED, luminance

from torchwhy import visualize as v


def panels(figure):
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def test_the_relative_scale_is_blind_to_units_and_the_absolute_one_is_not():
    maps = {"a": SIGNED, "b": 1000 * SIGNED}
    a, b = panels(v.grid(maps))
    np.testing.assert_allclose(a, b, atol=1e-12)
    a, b = panels(v.grid(maps, shared_scale="absolute"))
    assert np.abs(a - 1).max() < 0.05 < np.abs(b - 1).max()  # a is next to white
    maps = {"a": np.array([[0.0, 1.0, 2.0]]), "b": np.array([[2.0, 4.0, 0.0]])}
    a, b = panels(v.grid(maps, shared_scale="absolute", percentile=100))
    np.testing.assert_array_equal(a[0, 2], b[0, 0])  # one value, one colour
    np.testing.assert_array_equal(a[0, 0], b[0, 2])


def test_one_map_with_two_signs_gives_all_two_colours():
    maps = {"positive": np.array([[0.0, 1.0]]), "signed": np.array([[-1.0, 1.0]])}
    figure = v.grid(maps)
    positive, signed = panels(figure)
    np.testing.assert_array_equal(positive[0, 0], [1, 1, 1])
    np.testing.assert_array_equal(positive[0, 1], signed[0, 1])
    assert len(figure.axes) == 3
    figure = v.grid(maps, shared_scale=False)
    assert luminance(panels(figure)[0][0, 0]) < 0.01
    assert len(figure.axes) == 4


def test_the_photo_comes_first_and_under_the_maps():
    photo, overlay = panels(v.grid({"zero": np.zeros((1, 5, 5))}, images=CAT))
    np.testing.assert_array_equal(photo, CAT.transpose(1, 2, 0))
    np.testing.assert_array_equal(overlay[..., 0], v.grey(CAT))
    assert (panels(v.grid({"zero": np.zeros((1, 5, 5))}, images=CAT, overlay=False, signed=True))[1] == 1).all()


def test_rows_are_images_and_long_rows_are_broken():
    def places(figure):
        boxes = [ax.get_position() for ax in figure.axes if ax.images]
        return [len({round(b.y0, 6) for b in boxes}), len({round(b.x0, 6) for b in boxes})]

    images = np.stack([CAT, CAT])
    assert places(v.grid(MAPS, images=images)) == [2, 3]
    assert places(v.grid(MAPS, images=images, max_columns=2)) == [4, 2]
    assert places(v.grid({str(i): EDGES for i in range(7)}, max_columns=6)) == [2, 4]
    titles = [ax.get_title() for ax in v.grid(MAPS, images=images, titles=["cat", "dog"]).axes]
    assert titles == ["cat", "Saliency", "IntegratedGradients", "dog", "", "", ""]


def test_images_of_different_sizes():
    figure = v.grid({"a": [EDGES, EDGES[:, :50]]}, images=[CAT, CAT[:, :, :50]])
    assert [p.shape[1] for p in panels(figure)] == [113, 113, 50, 50]
    for ax in figure.axes[:4]:
        box, pixels = ax.get_window_extent(), ax.images[0].get_array()
        assert box.height / box.width == pytest.approx(pixels.shape[0] / pixels.shape[1], rel=1e-6)


def test_long_texts_are_broken_before_they_are_made_smaller():
    figure = v.grid(
        {"a long name of a method": EDGES}, captions={"a long name of a method": "1.2 s · 64 evaluations"}, panel=1
    )
    title, caption = figure.axes[0].title, figure.axes[0].xaxis.label
    assert title.get_text() == "a long name of\na method"
    assert caption.get_text() == "1.2 s\n64 evaluations"
    assert (title.get_size(), caption.get_size()) == (9.5, 7.5)
    assert v.grid({"IntegratedGradients": EDGES}, panel=1).axes[0].title.get_size() < 9.5  # one word


@pytest.mark.parametrize(
    "options, message",
    [
        ({"images": CAT}, r"attributions\['Saliency'\] has 2 rows, but there are 1"),
        ({"titles": ["a", "b"]}, "images is not given"),
        ({"images": np.stack([CAT, CAT]), "titles": ["a"]}, "titles has 1 texts"),
        ({"captions": {"Salience": ""}}, r"captions has \['Salience'\]"),
        ({"captions": {"Saliency": ["a"]}}, r"captions\['Saliency'\] has 1 texts"),
        ({"shared_scale": "both"}, "shared_scale must be"),
        ({"max_columns": 0}, "max_columns must be"),
    ],
)
def test_grids_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        v.grid(MAPS, **options)


def test_a_grid_needs_names():
    with pytest.raises(ValueError, match="must map at least one name"):
        v.grid([EDGES])
    with pytest.raises(ValueError, match="must map at least one name"):
        v.grid({})
