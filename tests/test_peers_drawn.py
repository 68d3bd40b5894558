"""The same numbers as other libraries on drawn networks, but for the deviations that one table gives the reasons of."""

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from captum import attr as captum
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import torchwhy as tw
from torchwhy import metrics as M

ACTIVATIONS = {a.__name__: a for a in (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.Softplus, nn.LeakyReLU)}
POOLS = {"average": nn.AvgPool2d, "max": nn.MaxPool2d, "none": lambda size: nn.AvgPool2d(1)}


class Small(nn.Module):
    """Images (N, 2, 6, 6) → (N, 3); no module twice, nothing functional, nothing in place: what hooks on modules need."""

    def __init__(self, act, pool, width, bias):
        super().__init__()
        self.conv1, self.act1, self.pool = (
            nn.Conv2d(2, width, 3, padding=1, bias=bias),
            ACTIVATIONS[act](),
            POOLS[pool](2),
        )
        side = 6 if pool == "none" else 3
        self.conv2, self.act2 = nn.Conv2d(width, 3, 3, padding=1, bias=bias), ACTIVATIONS[act]()
        self.head = nn.Linear(3 * side * side, 3, bias=bias)

    def forward(self, x):
        return self.head(self.act2(self.conv2(self.pool(self.act1(self.conv1(x))))).flatten(1))


@dataclass(frozen=True)
class Scene:
    """A drawn network and what it is asked about."""

    act: str
    pool: str
    width: int
    bias: bool
    seed: int
    n: int
    scale: float

    def setup(self):
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            net = Small(self.act, self.pool, self.width, self.bias).double().eval()
            x, b = torch.randn(2, self.n, 2, 6, 6, dtype=torch.double) * self.scale
            return net, x, b, torch.randint(3, (self.n,)).tolist()


scenes = st.builds(
    Scene,
    act=st.sampled_from(list(ACTIVATIONS)),
    pool=st.sampled_from(list(POOLS)),
    width=st.integers(1, 4),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
    n=st.integers(1, 3),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
)
MASK = torch.arange(72).view(1, 2, 6, 6) % 4
LINE = {"n_steps": 9, "method": "gausslegendre"}


def zennit_relevance(net, x, t, composite):
    from zennit.attribution import Gradient

    with Gradient(net, composite) as attributor:
        return attributor(x, lambda out: out * torch.eye(3, dtype=torch.double)[t])[1]


def zennit_plus(net, x, t):
    composites = pytest.importorskip("zennit.composites")
    return zennit_relevance(net, x, t, composites.EpsilonPlus(epsilon=1e-12, stabilizer=1e-12))


def to_one(maps):
    """Maps (N, H, W), each brought to [0, 1] as pytorch-grad-cam does."""
    low = maps.flatten(1).amin(1)[:, None, None]
    shifted = maps - low
    return shifted / (1e-7 + shifted.flatten(1).amax(1)[:, None, None])


def shap_exact(net, x, t, b):
    shap = pytest.importorskip("shap")
    found = []
    for i, k in enumerate(t):

        def score(kept, i=i, k=k):
            keep = torch.as_tensor(kept, dtype=torch.bool)[:, MASK.flatten()].view(-1, 2, 6, 6)
            with torch.no_grad():
                return net(torch.where(keep, x[i], b[i]))[:, k].numpy()

        values = shap.explainers.Exact(score, np.zeros((1, 4)))(np.ones((1, 4))).values
        found.append(torch.as_tensor(values)[0][MASK[0]])
    return torch.stack(found)


def quantus_score(name, net, x, t, a):
    quantus = pytest.importorskip("quantus")
    metric = getattr(quantus, name)(normalise=False, disable_warnings=True, display_progressbar=False)
    found = metric(model=net, x_batch=x.numpy(), y_batch=np.array(t), a_batch=a.numpy(), device="cpu", softmax=False)
    return torch.as_tensor(found, dtype=torch.double)


# pairs of one kind: (ours, theirs), each (network, inputs, baselines, targets) → numbers
def of_inputs(ours, theirs):
    return (
        lambda net, x, b, t: ours(net).attribute(x, t),
        lambda net, x, b, t: theirs(net).attribute(x, t),
    )


def against_baselines(ours, theirs, **data):
    return (
        lambda net, x, b, t: ours(net).attribute(x, t, baselines=b, **data),
        lambda net, x, b, t: theirs(net).attribute(x, b, t, **data),
    )


def along_a_line(ours, theirs):
    return (
        lambda net, x, b, t: ours(net, **LINE).attribute(x, t, baselines=b),
        lambda net, x, b, t: theirs(net).attribute(x, b, t, **LINE),
    )


def cam(ours, theirs):
    def of_the_peer(net, x, b, t):
        peer = pytest.importorskip("pytorch_grad_cam")
        targets = [peer.utils.model_targets.ClassifierOutputTarget(k) for k in t]
        found = getattr(peer, theirs)(net, [net.act2])(input_tensor=x.clone(), targets=targets)
        return torch.as_tensor(found).double()

    # the peer brings the map of a layer to [0, 1], and the mean of all layers again
    return lambda net, x, b, t: to_one(to_one(ours(net, layer="act2").attribute(x, t)[:, 0])), of_the_peer


def metric(ours, theirs, added):
    """A measure of the saliency map, to which Quantus adds a number before it looks."""
    return (
        lambda net, x, b, t: ours(tw.Saliency(net).attribute(x, t) + added),
        lambda net, x, b, t: quantus_score(theirs, net, x, t, tw.Saliency(net).attribute(x, t)),
    )


PAIRS = {
    "saliency": of_inputs(tw.Saliency, captum.Saliency),
    "input x gradient": of_inputs(tw.InputXGradient, captum.InputXGradient),
    "guided": of_inputs(tw.GuidedBackprop, captum.GuidedBackprop),
    "deconvolution": of_inputs(tw.DeconvNet, captum.Deconvolution),
    "LRP": of_inputs(partial(tw.LRP, composite="epsilon", epsilon=1e-9), captum.LRP),
    "integrated gradients": along_a_line(tw.IntegratedGradients, captum.IntegratedGradients),
    "conductance": along_a_line(
        partial(tw.Conductance, layer="conv2"), lambda net: captum.LayerConductance(net, net.conv2)
    ),
    "DeepLIFT": against_baselines(tw.DeepLIFT, captum.DeepLift),
    "ablation": against_baselines(tw.FeatureAblation, captum.FeatureAblation, feature_mask=MASK),
    "Shapley": against_baselines(tw.ExactShapley, captum.ShapleyValues, feature_mask=MASK),
    "occlusion": (
        lambda net, x, b, t: tw.Occlusion(net, sliding_window_shapes=(2, 2, 2), strides=2).attribute(x, t),
        lambda net, x, b, t: captum.Occlusion(net).attribute(x, (2, 2, 2), (2, 2, 2), target=t),
    ),
    "Grad-CAM": (
        lambda net, x, b, t: tw.GradCAM(net, layer="act2", relu=False, upsample=False).attribute(x, t),
        lambda net, x, b, t: captum.LayerGradCam(net, net.act2).attribute(x, t),
    ),
    "zennit": (
        lambda net, x, b, t: tw.LRP(net, composite="epsilon_plus", epsilon=1e-12).attribute(x, t),
        lambda net, x, b, t: zennit_plus(net, x, t),
    ),
    "shap": (
        lambda net, x, b, t: tw.ExactShapley(net).attribute(x, t, baselines=b, feature_mask=MASK),
        lambda net, x, b, t: shap_exact(net, x, t, b),
    ),
    "Grad-CAM of its own library": cam(tw.GradCAM, "GradCAM"),
    "HiResCAM": cam(tw.HiResCAM, "HiResCAM"),
    "LayerCAM": cam(tw.LayerCAM, "LayerCAM"),
    "XGradCAM": cam(tw.XGradCAM, "XGradCAM"),
    "sparseness of Quantus": metric(M.sparseness, "Sparseness", 1e-7),
    "complexity of Quantus": metric(M.complexity, "Complexity", 0.0),
}
# Captum rounds the steps of its rules to single precision, Zennit has another stabiliser, pytorch-grad-cam gives single precision
ROUNDED = ("LRP", "zennit", "Grad-CAM of its own library", "HiResCAM", "LayerCAM", "XGradCAM")


@dataclass(frozen=True)
class Deviation:
    """Where another library gives other numbers, and why."""

    pair: str
    where: object  # scene → whether it applies
    reason: str


def has_a_map_of_zeros(scene):
    net, x, _, t = scene.setup()
    return bool((tw.Saliency(net).attribute(x, t).flatten(1) == 0).all(1).any())


DEVIATIONS = (
    Deviation(
        "DeepLIFT", lambda s: s.pool == "max", "Captum's max pooling loses what other cells of a window had: a gap"
    ),
    Deviation("guided", lambda s: s.act != "ReLU", "Captum changes modules of class ReLU alone, ours all rectifiers"),
    Deviation("deconvolution", lambda s: s.act != "ReLU", "as for guided: Captum changes modules of class ReLU alone"),
    Deviation("LRP", lambda s: s.act not in ("ReLU", "Tanh"), "Captum refuses activations other than ReLU and Tanh"),
    Deviation("LRP", lambda s: s.bias and s.act == "Tanh", "Captum has no stabiliser at saturated units"),
    Deviation(
        "XGradCAM",
        lambda s: s.act not in ("ReLU", "Sigmoid", "Softplus"),
        "pytorch-grad-cam adds 1e-7 to a channel's sum, which is near 0 where activations of both signs cancel",
    ),
    *(
        Deviation(pair, has_a_map_of_zeros, "Quantus refuses a map of zeros, or takes it for an even one; ours is NaN")
        for pair in ("sparseness of Quantus", "complexity of Quantus")
    ),
    Deviation("zennit", lambda s: s.act != "ReLU", "Zennit passes relevance through activations that ours scale it at"),
)


def reason(name, scene):
    """Why the pair is not the same there; None where it has to be."""
    return next((d.reason for d in DEVIATIONS if d.pair == name and d.where(scene)), None)


def agree(name, scene):
    if reason(name, scene) is not None:
        return
    ours, theirs = PAIRS[name]
    net, x, b, t = scene.setup()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, expected = ours(net, x, b, t), theirs(net, x, b, t).detach()
    within = 1e-4 if name in ROUNDED else 2e-6
    within = {"rtol": within, "atol": within * float(expected.abs().max() + 1e-6)}
    torch.testing.assert_close(found.double(), expected.double(), **within)


def run(name, examples, **how):
    how = {"phases": [Phase.generate, Phase.shrink], **how}
    settled = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        **how,
    )
    settled(given(scenes)(lambda scene: agree(name, scene)))()


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_as_others(name):
    run(name, 10, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_the_same_as_others_at_length(name):
    run(name, 300)


def test_every_deviation_has_its_reason():
    assert {d.pair for d in DEVIATIONS} <= set(PAIRS)
    assert all(len(d.reason) > 20 for d in DEVIATIONS)
