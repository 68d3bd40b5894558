"""Every method of modified backpropagation runs on real architectures, untouched, and means something there."""

import warnings

import pytest
import zoo

import torchwhy as tw

METHODS = {
    "GuidedBackprop": lambda m: tw.GuidedBackprop(m),
    "DeconvNet": lambda m: tw.DeconvNet(m),
    "LRP auto": lambda m: tw.LRP(m),
    "LRP epsilon": lambda m: tw.LRP(m, composite="epsilon"),
    "LRP attention": lambda m: tw.LRP(m, composite="attention"),
    "LRP epsilon_gamma": lambda m: tw.LRP(m, composite="epsilon_gamma"),
    "Excitation": lambda m: tw.ExcitationBackprop(m),
    "DeepLIFT": lambda m: tw.DeepLIFT(m),
}
NO_RECTIFIER = {"lstm", "gru", "rnn", "gpt2"}  # GPT-2 writes its GELU by hand, with tanh


def check(name):
    model, x = zoo.build(name)
    target = zoo.live_class(model, x)
    gradient = tw.Saliency(model, signed=True).attribute(x, target)
    for label, make in METHODS.items():
        if name in NO_RECTIFIER and label in ("GuidedBackprop", "DeconvNet"):
            with pytest.warns(UserWarning, match="plain gradient"):
                make(model).attribute(x, target)
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*plain gradient$", UserWarning)
            warnings.filterwarnings("ignore", "DeepLIFT: the attributions", UserWarning)
            e = make(model).explain(x, target)
        assert e.attributions.isfinite().all(), label
        assert e.attributions.any(), label
        plain = gradient if label in ("GuidedBackprop", "DeconvNet") else x * gradient
        exact = label.startswith("LRP") and name in ("alexnet", "squeezenet1_1", "googlenet")  # may be x * gradient
        difference = (e.attributions - plain).norm() / plain.norm()
        assert exact or difference > 1e-3 or label in ("LRP epsilon", "LRP attention"), label
    e = tw.DeepLIFT(model.double()).explain(x.double(), target)  # some of these nets are too rough for float32
    assert not e.details["plain_operations"], e.details
    assert e.completeness_gap.max() <= 0.001 * e.attributions.sum().abs(), e.completeness_gap
    model, x = zoo.build(name, biases=False)
    e = tw.LRP(model, composite="epsilon", epsilon=1e-12).explain(x, zoo.live_class(model, x))
    score = model(x)[0, zoo.live_class(model, x)].abs()
    assert e.completeness_gap.max() <= 0.01 * score + 1e-5 * e.attributions.abs().sum(), (e.completeness_gap, score)


@pytest.mark.parametrize("name", [*zoo.SMALL, *zoo.RECURRENT])
def test_small(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NAMES)
def test_full_size(name):
    if name.startswith("timm "):
        pytest.importorskip("timm")
    if name in zoo.LANGUAGE:
        pytest.importorskip("transformers")
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.other_torchvision())
def test_every_other_torchvision_architecture(name):
    check(name)
