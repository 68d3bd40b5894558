"""The class activation maps against pytorch-grad-cam's, where these are right, on a CNN, a ViT and a Swin."""

import pytest
import torch
from reference import cam_masks as slow_masks
from test_cam_windows import lively
from torch import nn
from torch.nn import functional as F

import torchwhy as tw

peer = pytest.importorskip("pytorch_grad_cam")
models = pytest.importorskip("torchvision.models")

X = torch.randn(2, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(6))
TARGETS = [1, 2]
VIT = "encoder.layers.encoder_layer_2.ln_1"


def resnet():
    net = models.resnet18(num_classes=5)
    return net, "layer2", lambda t: t, X, ()


def vit():
    net = models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    # above the last attention only the class token is read
    return net, VIT, lambda t: t[:, 1:].mT.unflatten(2, (4, 4)), X[..., ::2, ::2], (0,)


def swin():
    net = models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=5)
    return net, "features.3.0", lambda t: t.permute(0, 3, 1, 2), X[..., ::2, ::2], ()


NETS = {"resnet18": resnet, "vit": vit, "swin": swin}


@pytest.fixture(params=NETS)
def case(request):
    """Network, name of the layer, reshape function, pictures, the tokens that are no cells."""
    torch.manual_seed(0)
    net, *rest = NETS[request.param]()
    return (lively(net).requires_grad_(True), *rest)


class Zero(peer.ablation_layer.AblationLayerVit):
    """Sets channels to 0, on the cells alone; the peer's own takes -10⁷ where activations may be negative."""

    def __init__(self, others):
        super().__init__()
        self.others = len(others)

    def __call__(self, x):
        out = self.activations.clone()
        for i, k in enumerate(self.indices[: len(out)]):
            out[i, self.others :, ..., k] = 0
        return out


def theirs(name, case):
    """The peer's maps (N, H, W)."""
    net, layer, reshape, x, others = case
    target = peer.utils.model_targets.ClassifierOutputTarget
    own = {"ablation_layer": Zero(others)} if name == "AblationCAM" and layer != "layer2" else {}
    method = getattr(peer, name)(net, [net.get_submodule(layer)], reshape_transform=reshape, **own)
    maps = method(input_tensor=x.clone(), targets=[target(k) for k in TARGETS])
    return torch.as_tensor(maps, dtype=torch.double)


def correlations(maps, others):
    """Row by row."""
    assert maps.flatten(1).std(1).min() > 0
    return [float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) for a, b in zip(maps, others)]


def brought(grids, x):
    """Signed grids (N, h, w) as maps of the input's size."""
    return F.interpolate(grids.clamp(min=0)[:, None], x.shape[2:], mode="bilinear")[:, 0]


def gradients(case):
    """For each row the gradients and the activations, (C, h, w)."""
    net, layer, reshape, x, _ = case
    place = net.get_submodule(layer)
    for i, k in enumerate(TARGETS):
        seen = []
        handle = place.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out))
        score = net(x[i : i + 1])[0, k]
        handle.remove()
        (g,) = torch.autograd.grad(score, seen)
        yield reshape(g)[0], reshape(seen[0].detach())[0]


@pytest.mark.parametrize("name", ["GradCAM", "XGradCAM", "HiResCAM", "LayerCAM", "AblationCAM"])
def test_maps(name, case):
    net, layer, _, x, _ = case
    found = getattr(tw, name)(net, layer=layer).attribute(x, TARGETS)[:, 0]
    assert min(correlations(found, theirs(name, case))) > 0.999


def test_eigen_cam(case):
    net, layer, _, x, _ = case
    found = tw.EigenCAM(net, layer=layer, relu=False, upsample=False).attribute(x)[:, 0]
    expected = theirs("EigenCAM", case)  # of either sign
    for i in range(len(x)):
        both = [correlations(brought(s * found[i : i + 1], x), expected[i : i + 1])[0] for s in (1, -1)]
        assert max(both) > 0.999


def test_grad_cam_plusplus(case):
    """The peer adds 10⁻⁶ to a denominator that is often smaller; ours is the limit without it."""
    net, layer, _, x, _ = case
    with torch.no_grad():  # gradients as small as those of large models
        [m for m in net.modules() if isinstance(m, nn.Linear)][-1].weight *= 1e-3

    def maps(eps):
        found = []
        for g, a in gradients(case):
            alpha = g**2 / (2 * g**2 + a.sum((1, 2), keepdim=True) * g**3 + eps)
            found.append(((g.clamp(min=0) * alpha).sum((1, 2))[:, None, None] * a).sum(0))
        return torch.stack(found)

    expected = theirs("GradCAMPlusPlus", case)
    assert min(correlations(brought(maps(1e-6), x), expected)) > 0.999
    found = tw.GradCAMPlusPlus(net, layer=layer, relu=False, upsample=False).attribute(x, TARGETS)[:, 0]
    assert float((maps(1e-6) - found).abs().max() / found.abs().max()) > 0.1
    gaps = [float((maps(eps) - found).abs().max() / found.abs().max()) for eps in (1e-14, 1e-18, 1e-22)]
    assert gaps[1] < 1e-3 * max(gaps[0], 1e-12)
    assert gaps[2] < 1e-9


def test_score_cam(case):
    """The peer interpolates its masks from corner to corner; ours, as the map itself, from cell to cell."""
    net, layer, _, x, _ = case
    expected, found = theirs("ScoreCAM", case), tw.ScoreCAM(net, layer=layer, upsample=False).attribute(x, TARGETS)
    _, a = next(iter(gradients(case)))
    for align in (True, False):
        with torch.no_grad():
            score = slow_masks.scorecam(lambda z: net(z)[0, TARGETS[0]], x[:1], a, align_corners=align)
        if align:
            assert min(correlations(brought(score[None], x), expected[:1])) > 0.999
        else:
            torch.testing.assert_close(found[0, 0], score, rtol=1e-5, atol=1e-12)
    if layer != VIT:  # whose 4 x 4 cells are far apart
        assert min(correlations(brought(found[:, 0], x), expected)) > 0.999
