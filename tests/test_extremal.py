"""Extremal perturbations: the parts against the paper written out, the whole on a planted square."""

import numpy as np
import pytest
import torch
from reference import perturbation as reference

import torchwhy as tw
from torchwhy.perturbation.smooth_masks import SmoothMasks, blend_levels


def planted():
    """An image with a pattern in a tenth of it, and outputs: how well the pattern is seen, and the mean above it."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(3, 20, 20, generator=generator)
    x = torch.rand(1, 3, 64, 64, generator=generator)
    x[:, :, 20:40, 30:50] += pattern
    seen = lambda x: (x[:, :, 20:40, 30:50] * pattern).mean((1, 2, 3)) * 30  # noqa: E731
    return x, lambda x: torch.stack([seen(x), x[:, :, :10].mean((1, 2, 3))], 1)


@pytest.mark.parametrize("reward", ["preserve", "delete", "hybrid"])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_planted_square_is_found(reward, scale):
    x, model = planted()
    method = tw.ExtremalPerturbation(
        lambda x: scale * model(x), areas=(0.1,), reward=reward, n_steps=150, sigma=5.0, step=4, max_blur=None
    )
    found = method.explain(x, 0)
    m = found.attributions[0, 0]
    assert found.attributions.shape == (1, 1, 64, 64)
    assert 0.08 < m.mean() < 0.14
    assert m[20:40, 30:50].mean() > 0.6
    assert m[20:40, 30:50].sum() > 0.5 * m.sum()
    kept = found.details["scores"].item() / (scale * model(x)[0, 0].item())
    assert kept < 0.4 if reward == "delete" else kept > 0.6


def test_masks_are_the_papers():
    p = torch.rand(1, 3, 4, dtype=torch.double)
    masks = SmoothMasks((8, 11), 3, 2.5, p)
    assert masks.cells == (3, 4)
    beyond = torch.from_numpy(np.pad(p[0].numpy(), masks.reach, mode="symmetric"))
    torch.testing.assert_close(masks(p)[0, 0], reference.smooth_mask(beyond, 3, 2.5, masks.reach, (8, 11)))


@pytest.mark.parametrize(("size", "step", "sigma"), [((224, 224), 7, 21.0), ((64, 64), 2, 6.0), ((60, 90), 5, 12.0)])
@pytest.mark.parametrize("level", [1.0, 0.7, 0.2])
def test_even_parameters_do_not_favour_the_border(size, step, sigma, level):
    masks = SmoothMasks(size, step, sigma, torch.zeros(1, dtype=torch.double))
    m = masks(torch.full((1, *masks.cells), level, dtype=torch.double))[0, 0]
    cell = m[:step, :step]
    for row in (0, size[0] // 2 // step * step, size[0] // step * step - step):
        for column in (0, size[1] // 2 // step * step, size[1] // step * step - step):
            torch.testing.assert_close(m[row : row + step, column : column + step], cell)


def test_the_area_error_by_hand():
    m = torch.tensor([[[[0.5, 1.0], [0.0, 0.25]]]])
    # sorted 0, 0.25, 0.5, 1 against 0, 0, 1, 1
    torch.testing.assert_close(SmoothMasks.area_error(m, torch.tensor([0.5])), torch.tensor([0.3125 / 4]))


def test_mixing_goes_from_sharp_to_hidden():
    levels = torch.tensor([0.0, 10.0, 40.0]).view(1, 3, 1, 1, 1).expand(1, 3, 2, 1, 4)
    m = torch.tensor([1.0, 0.75, 0.5, 0.0]).view(1, 1, 1, 4)
    assert blend_levels(levels, m)[0, 0, 0].tolist() == [0, 5, 10, 40]


def test_contrast_is_with_the_largest_other_output():
    x, _ = planted()
    outputs = lambda x: torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3)), -x.mean((1, 2, 3))], 1)  # noqa: E731
    one = tw.ExtremalPerturbation(lambda x: outputs(x)[:, 0] - outputs(x)[:, 1], n_steps=3, areas=(0.2,)).explain(x)
    found = tw.ExtremalPerturbation(outputs, n_steps=3, areas=(0.2,), contrastive=True).explain(x, 0)
    torch.testing.assert_close(found.attributions, one.attributions)
    torch.testing.assert_close(found.details["scores"], one.details["scores"])
    with pytest.raises(ValueError, match="contrastive: needs a class"):
        tw.ExtremalPerturbation(lambda x: x.mean((1, 2, 3)), n_steps=1, contrastive=True).attribute(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"areas": (0.1, 1.0)}, "areas="),
        ({"areas": ()}, "areas="),
        ({"reward": "keep"}, "reward='keep'"),
        ({"n_steps": 0}, "n_steps=0"),
        ({"sigma": 0.0}, "sigma=0.0"),
        ({"max_blur": 0.0}, "max_blur=0.0"),
    ],
)
def test_bad_settings(settings, message):
    x, model = planted()
    with pytest.raises(ValueError, match=message):
        tw.ExtremalPerturbation(model, **settings).attribute(x, 0)
    with pytest.raises(ValueError, match="inputs: expected one tensor"):
        tw.ExtremalPerturbation(model).attribute(x[0], 0)


@pytest.mark.parametrize("area", [0.1, 0.3])
def test_the_ascent_does_not_end_at_the_border(area):
    x = 1 + 0.2 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    method = tw.ExtremalPerturbation(
        lambda z: torch.tanh(z).mean((1, 2, 3)), areas=(area,), n_steps=80, sigma=6.0, step=4, max_blur=None
    )
    m = method.attribute(x)[:, 0]  # of a score to which every pixel is worth the same
    at_border = 1 - m[:, 6:-6, 6:-6].sum((1, 2)) / m.sum((1, 2))
    assert (at_border < 0.4).all(), "0.34 of the pixels are there"
    assert abs(m.mean() - area) < 0.02
