"""What do the methods with a modified backward pass cost, against a plain forward and backward pass of the same rows?

Beside them Zennit (with its canonizers, which a vision transformer has none of) and Captum (DeepLIFT on VGG only: residual
networks use their activations twice). Then the peak memory of each, in a process of its own.
"""

from __future__ import annotations

import torch
from harness import Benchmark
from measure import void

import torchwhy as tw

BASE = "forward + backward"
BOX = {"low": -3.0, "high": 3.0}
CALLS = {
    "GuidedBackprop": "tw.GuidedBackprop(model)",
    "DeconvNet": "tw.DeconvNet(model)",
    "LRP epsilon": 'tw.LRP(model, composite="epsilon")',
    "LRP default": "tw.LRP(model)",
    "LRP epsilon_gamma_box": 'tw.LRP(model, composite="epsilon_gamma_box", low=-3.0, high=3.0)',
    "LRP epsilon_alpha2_beta1": 'tw.LRP(model, composite="epsilon_alpha2_beta1")',
    "DeepLIFT": "tw.DeepLIFT(model)",
    "DeepLIFT reveal_cancel": 'tw.DeepLIFT(model, rule="reveal_cancel")',
}
PLAIN = "torch.autograd.grad(model(z := x.clone().requires_grad_())[:, 0].sum(), z)"


def plain(model, x):
    """A forward and a backward pass to the input; the parameters must be frozen."""

    def side():
        z = x.clone().requires_grad_()
        torch.autograd.grad(model(z)[:, 0].sum(), z)

    return side


def zennit_sides(name, model, x):
    """Zennit's composite of that name, if it has one."""
    try:
        from zennit import composites, rules, types
        from zennit.attribution import Gradient
        from zennit.torchvision import ResNetCanonizer, VGGCanonizer
    except ImportError:
        print("zennit is not installed: left out")
        return {}
    canonizer = {"r": ResNetCanonizer, "v": VGGCanonizer}[type(model).__name__[0].lower()]
    box = {k: torch.full_like(x[:1], v) for k, v in BOX.items()}
    make = {
        "GuidedBackprop": lambda **c: composites.GuidedBackprop(),
        "LRP epsilon": lambda **c: composites.LayerMapComposite(
            [*composites.layer_map_base(), (types.Linear, rules.Epsilon(1e-6))], **c
        ),
        "LRP default": composites.EpsilonPlusFlat,
        "LRP epsilon_gamma_box": lambda **c: composites.EpsilonGammaBox(**box, **c),
        "LRP epsilon_alpha2_beta1": composites.EpsilonAlpha2Beta1,
    }.get(name)
    if make is None:
        return {}

    def side():
        with Gradient(model, make(canonizers=[canonizer()])) as attributor:
            attributor(x, lambda y: torch.eye(y.shape[1], device=y.device)[torch.zeros(len(y), dtype=torch.long)])

    return {"zennit": side}


def captum_sides(name, model, x, deeplift):
    """Captum's method, where it has it and runs it on this network."""
    try:
        from captum import attr
    except ImportError:
        print("captum is not installed: left out")
        return {}
    names = {
        "GuidedBackprop": "GuidedBackprop",
        "DeconvNet": "Deconvolution",
        **({"DeepLIFT": "DeepLift"} if deeplift else {}),
    }
    return {"captum": lambda: void(getattr(attr, names[name])(model).attribute(x, target=0))} if name in names else {}


def compare(bench, network, rows, side, names, *, peers):
    """One case for each method."""
    from torchvision import models

    model = models.get_model(network).eval().requires_grad_(False).to(bench.device)
    for module in model.modules():  # captum and zennit do not bear operations in place
        if hasattr(module, "inplace"):
            module.inplace = False
    x = torch.randn(rows, 3, side, side).clamp(-3, 3).to(bench.device)
    base = plain(model, x)
    base()
    for name in names:
        label = f"{name}, {network}, {rows} image{'s' * (rows > 1)}"
        if not bench.wanted(label):
            continue
        method = eval(CALLS[name], {"tw": tw, "model": model})
        sides = {BASE: base, "torchwhy": lambda method=method: void(method.attribute(x, 0))}
        if peers:
            sides |= zennit_sides(name, model, x) | captum_sides(name, model, x, network.startswith("vgg"))
        for peer in ("zennit", "captum"):
            try:
                sides.get(peer, lambda: None)()
            except Exception as error:
                print(f"{name}, {network}: {peer} left out: {str(error).splitlines()[0][:90]}")
                del sides[peer]
        bench.case(label, sides, base=BASE)


def memory(bench, network, rows, side, names):
    """Peak growth of each method, in a process of its own."""
    label = f"memory, {network}, {rows} images"
    if bench.device != "cpu" or not bench.wanted(label):
        return
    calls = {BASE: PLAIN, **{f"torchwhy {n}": f"{CALLS[n]}.attribute(x, 0)" for n in names}}
    bench.memory(label, calls, network, side, rows, "model.requires_grad_(False)")


def main() -> None:
    bench = Benchmark("backprop_speed", "Modified backpropagation against a plain forward and backward pass", gpu=True)
    torch.manual_seed(0)
    names = list(CALLS)
    if bench.quick:
        compare(bench, "resnet50", 2, 96, names, peers=True)
        compare(bench, "vit_b_16", 1, 224, names[2:4], peers=False)
        memory(bench, "resnet50", 2, 224, names[3:4])
    else:
        compare(bench, "resnet50", 8, 224, names, peers=True)
        compare(bench, "vit_b_16", 4, 224, names, peers=False)
        compare(bench, "vgg11", 4, 224, ["GuidedBackprop", "DeepLIFT"], peers=True)
        for network in ("resnet50", "vit_b_16"):
            memory(bench, network, 4, 224, names)
    bench.finish()


if __name__ == "__main__":
    main()
