"""Feature visualization: against a plain loop, and on targets whose best image is known."""

import pytest
import torch
from torch import nn

import torchwhy as tw
from torchwhy.concept.image_parameters import Jitter, total_variation


class Templates(nn.Module):
    """Each class is a template; the hidden layer has maps."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        coarse = torch.randn(3, 1, 4, 4, generator=g, dtype=torch.double)
        self.templates = nn.Parameter(nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear"))
        self.conv = nn.Conv2d(1, 4, 3).double()
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(4, 1, 3, 3, generator=g, dtype=torch.double))

    def forward(self, x):
        self.conv(x)
        return torch.einsum("nchw,kchw->nk", x - 0.5, self.templates)


@pytest.fixture(scope="module")
def net():
    return Templates().eval()


SMALL = {"size": (16, 16), "channels": 1, "n_steps": 40}
STILL = {"shift": 0.0, "degrees": 0.0, "zoom": 0.0}


@pytest.mark.parametrize("kind", ["fourier", "pixel"])
@pytest.mark.parametrize("still", [{}, STILL])
def test_images_show_the_templates(net, kind, still):
    found = tw.FeatureVisualization(net, parameterization=kind, **still, **SMALL).generate([0, 1, 2])
    assert found.images.shape == (3, 1, 16, 16)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    alike = torch.corrcoef(torch.cat([found.images.flatten(1), net.templates.detach().flatten(1)]))[:3, 3:]
    assert (alike.diagonal() > 0.65).all()
    assert (alike.argmax(1) == torch.arange(3)).all()
    assert torch.allclose(found.scores, net(found.images).diagonal().detach())
    assert found.history.shape == (40, 3)
    assert (found.scores > found.history[0]).all()


def test_pixels_as_in_a_plain_loop(net):
    """Adam on the logits of pixels, one target at a time, with both penalties."""
    method = tw.FeatureVisualization(
        net, parameterization="pixel", tv_weight=3.0, l2_weight=2.0, learning_rate=0.1, generator=3, **STILL, **SMALL
    )
    found = method.generate([2, 0])
    first = 0.01 * torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    for row, target in enumerate([2, 0]):
        numbers, m, v = first.clone(), torch.zeros_like(first), torch.zeros_like(first)
        for step in range(1, 41):
            leaf = numbers.clone().requires_grad_()
            image = torch.sigmoid(leaf)
            tv = (image[:, 1:] - image[:, :-1]).pow(2).mean() + (image[:, :, 1:] - image[:, :, :-1]).pow(2).mean()
            loss = -net(image[None])[0, target] + 3 * tv + 2 * (image - 0.5).pow(2).mean()
            (g,) = torch.autograd.grad(loss, leaf)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            numbers = numbers - 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        assert torch.allclose(found.images[row], torch.sigmoid(numbers), atol=1e-9)


def test_targets_together_are_targets_alone(net):
    method = tw.FeatureVisualization(net, **SMALL)
    together = method.generate([0, 2])
    assert torch.allclose(method.generate(2).images[0], together.images[1])
    assert torch.allclose(tw.FeatureVisualization(net, batch_size=1, **SMALL).generate([0, 2]).images, together.images)
    assert torch.equal(method.generate([0, 2]).images, together.images)
    assert not torch.equal(tw.FeatureVisualization(net, generator=1, **SMALL).generate([0, 2]).images, together.images)


def test_channels_and_units_of_a_layer(net):
    method = tw.FeatureVisualization(net, layer="conv", **STILL, **SMALL)
    channel = method.generate([1, 3])
    with torch.no_grad():
        assert torch.allclose(channel.scores, net.conv(channel.images)[[0, 1], [1, 3]].mean((1, 2)))
        unit = method.generate([(1, 5, 6)])
        assert torch.allclose(unit.scores, net.conv(unit.images)[:, 1, 5, 6])
        grey = net.conv(torch.full((1, 1, 16, 16), 0.5, dtype=torch.double))
        best = grey[0, 1, 5, 6] + 0.5 * net.conv.weight[1].abs().sum()
    assert unit.scores[0] > grey[0, 1, 5, 6]
    assert unit.scores[0] > 0.5 * (grey[0, 1, 5, 6] + best)


def test_penalties_and_transformations_act(net):
    plain = tw.FeatureVisualization(net, parameterization="pixel", **STILL, **SMALL).generate(0)
    smooth = tw.FeatureVisualization(net, parameterization="pixel", tv_weight=1e4, **STILL, **SMALL).generate(0)
    grey = tw.FeatureVisualization(net, parameterization="pixel", l2_weight=1e4, **STILL, **SMALL).generate(0)
    assert total_variation(smooth.images) < 0.5 * total_variation(plain.images)
    assert (grey.images - 0.5).abs().mean() < 0.5 * (plain.images - 0.5).abs().mean()
    dark = tw.FeatureVisualization(net, transforms=[lambda x: x.flip(3)], **STILL, **SMALL).generate(0)
    assert net(dark.images.flip(3))[0, 0] > net(dark.images)[0, 0]
    scaled = tw.FeatureVisualization(net, normalize=([0.5], [0.25]), **STILL, **SMALL).generate(0)
    assert torch.allclose(scaled.scores, net((scaled.images - 0.5) / 0.25)[:, 0].detach())


def test_jitter_shifts_turns_and_zooms():
    x = torch.zeros(1, 1, 9, 9, dtype=torch.double)
    x[..., 4, 6] = 1
    g = torch.Generator().manual_seed(0)
    at = [Jitter(0.0, 180.0, 0.0, g)(x).flatten().argmax().item() for _ in range(20)]
    assert all(round(((i // 9 - 4) ** 2 + (i % 9 - 4) ** 2) ** 0.5) in (2, 3) or i == 42 for i in at)
    assert len(set(at)) > 5
    moved = Jitter(2 / 9, 0.0, 0.0, torch.Generator().manual_seed(1))(x)
    dx, dy = 2 * torch.rand(2, generator=torch.Generator().manual_seed(1), dtype=torch.double) - 1
    rows, columns = (moved[0, 0].sum(d) @ torch.arange(9.0).double() / moved.sum() for d in (1, 0))
    assert (rows.item(), columns.item()) == pytest.approx((4 - 2 * dy.item(), 6 - 2 * dx.item()), abs=1e-6)
    assert Jitter(0.0, 0.0, 0.0, g)(x) is x


def test_dreams_excite_the_layer(net):
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    method = tw.DeepDream(net, layer="conv", n_octaves=2, step_size=0.02)
    dreamt = method.generate(x)
    assert dreamt.shape == x.shape
    assert dreamt.min() >= 0
    assert dreamt.max() <= 1
    energy = lambda z: net.conv(z).flatten(1).square().mean(1)  # noqa: E731
    assert (energy(dreamt) > 1.5 * energy(x)).all()
    assert torch.allclose(method.generate(x[1:])[0], dreamt[1])


def test_nothing_is_left_on_the_model(net):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    tw.FeatureVisualization(net, layer="conv", size=(16, 16), channels=1, n_steps=2).generate(0)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not net.conv._forward_hooks


def test_bad_questions_are_refused(net):
    with pytest.raises(ValueError, match="out of range"):
        tw.FeatureVisualization(net, **SMALL).generate(7)
    with pytest.raises(ValueError, match="'fourier' or 'pixel'"):
        tw.FeatureVisualization(net, parameterization="jpeg", **SMALL).generate(0)
    with pytest.raises(LookupError, match="nearest"):
        tw.FeatureVisualization(net, layer="cnv", **SMALL).generate(0)
    for setting in ({"size": 16}, {"size": (0, 16)}, {"n_steps": 0}, {"normalize": ((0.5,) * 2, (0.2,) * 2)}):
        with pytest.raises(ValueError, match=f"^{next(iter(setting))}="):
            tw.FeatureVisualization(net, **SMALL | setting).generate(0)
    with pytest.raises(ValueError, match="target: an empty list"):
        tw.FeatureVisualization(net, **SMALL).generate([])
    for setting in ({"n_octaves": 0}, {"n_steps": 0}, {"octave_scale": 0.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(setting))}="):
            tw.DeepDream(net, layer="conv", **setting).generate(torch.rand(1, 1, 16, 16))
    for images in (torch.rand(1, 16, 16), torch.rand(0, 1, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="images: expected"):
            tw.DeepDream(net, layer="conv").generate(images)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 2 to 2"):
        tw.DeepDream(net, layer="conv").generate(torch.full((1, 1, 16, 16), 2.0))


def test_in_inference_mode():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    method = tw.FeatureVisualization(net, size=(16, 16), n_steps=2)
    with torch.inference_mode():
        inside = method.generate(0).images
    torch.testing.assert_close(inside.clone(), method.generate(0).images)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("kind", ["fourier", "pixel"])
def test_models_in_half_precision(dtype, kind):
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
    settings = {"size": (8, 8), "n_steps": 5, "parameterization": kind}
    whole = tw.FeatureVisualization(cnn, **settings).generate(0)
    half = tw.FeatureVisualization(cnn.to(dtype), **settings).generate(0)
    assert half.images.dtype == dtype
    torch.testing.assert_close(half.images.float(), whole.images, atol=0.05, rtol=0.05)
    torch.testing.assert_close(half.scores.float(), whole.scores, atol=0.05, rtol=0.05)
    dream = tw.DeepDream(cnn, layer="0", n_octaves=1, n_steps=2).generate(torch.rand(1, 3, 8, 8).to(dtype))
    assert dream.dtype == dtype


def test_transforms_may_change_the_shape():
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 2)).eval()  # of images of 8 x 8
    resize = lambda images: nn.functional.interpolate(images, size=(8, 8))  # noqa: E731
    found = tw.FeatureVisualization(cnn, size=(16, 16), n_steps=2, transforms=[resize]).generate([0, 1])
    assert found.images.shape == (2, 3, 16, 16)
    torch.testing.assert_close(found.scores, cnn(resize(found.images)).diagonal().detach())
    rgbd = nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(72, 2)).eval()
    depth = lambda images: torch.cat([images, torch.ones_like(images[:, :1])], 1)  # noqa: E731
    assert tw.FeatureVisualization(rgbd, size=(8, 8), n_steps=2, transforms=[depth]).generate(0).images.shape == (
        1,
        3,
        8,
        8,
    )


def test_targets_as_arrays_channels_and_dead_units():
    import numpy as np

    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    make = tw.FeatureVisualization(cnn, size=(8, 8), n_steps=2, channels=1)
    plain = make.generate([0, 2])
    for targets in (np.array([0, 2]), torch.tensor([0, 2]), (np.int64(0),)):
        found = make.generate(targets)
        torch.testing.assert_close(found.images, plain.images[: len(found.images)])
    assert make.generate(np.int64(2)).images.shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match="channels=3: the model's first convolution takes 1; give channels=1"):
        tw.FeatureVisualization(cnn, size=(8, 8), n_steps=2).generate(0)
    cnn[0].bias.data[:2] = torch.tensor([10.0, -100.0])
    with pytest.warns(UserWarning, match=r"no step moved the images of the targets \[1\]"):
        tw.FeatureVisualization(cnn, layer="1", size=(8, 8), n_steps=2, channels=1).generate([0, 1])
