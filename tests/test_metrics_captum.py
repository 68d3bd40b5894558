"""Equal to Captum where it means the same."""

import itertools

import pytest
import torch
from nets import inputs, make
from reference import metrics as ref

import torchwhy as tw
from torchwhy import metrics as M
from torchwhy.metrics import reexplain


def rows_of(kind, target):
    """A network, inputs, baselines, untied attributions, and the network as a function of one row."""
    net, x = make(kind), inputs(kind)
    g = torch.Generator().manual_seed(7)
    a, b = (torch.randn(x.shape, generator=g, dtype=torch.double) for _ in range(2))
    return net, x, b, a, lambda z: net(z[None])[0, target]


@pytest.mark.parametrize("kind,target", list(itertools.product(["smooth", "conv"], [1, 2])))
def test_infidelity_equals_the_reference_and_captum(kind, target):
    net, x, b, a, f = rows_of(kind, target)
    moved = 0.3 * torch.randn(4, *x.shape[1:], generator=torch.Generator().manual_seed(3), dtype=torch.double)
    options = {"perturb": lambda n, g: moved[:n], "n_samples": 4, "baselines": b}
    for normalize, product in itertools.product([False, True], repeat=2):
        found = M.infidelity(net, x, a, target, normalize=normalize, multiplied_by_inputs=product, **options)
        phi = a / (x - b) if product else a
        expected = [ref.infidelity(f, r, p, moved, normalize) for r, p in zip(x, phi)]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double), rtol=1e-9, atol=1e-10)
        from captum import metrics as captum

        def perturb(z, product=product):
            i = moved.repeat(len(x), *[1] * (x.dim() - 1))
            return (i / (z - b.repeat_interleave(4, 0)) if product else i), z - i

        theirs = captum.infidelity(net, perturb, x, a, target=target, n_perturb_samples=4, normalize=normalize)
        torch.testing.assert_close(found, theirs.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [tw.Saliency, tw.InputXGradient, tw.IntegratedGradients])
def test_sensitivity_equals_captum(method):
    net, x = make("conv"), inputs("conv")
    ours = method(net)
    steps = reexplain.steps_in_ball(reexplain.make_problem(ours, x, 1, 5, {}), 0.3)[0][torch.arange(4)].double()

    def perturb(z):
        return z + steps.repeat(3, 1, 1, 1)

    from captum.metrics import sensitivity_max

    theirs = sensitivity_max(
        lambda z: (ours.attribute(z[0] if isinstance(z, tuple) else z, 1),), x, perturb, n_perturb_samples=4
    )
    found = M.sensitivity_max(ours, x, 1, radius=0.3, n_samples=4, generator=5)
    torch.testing.assert_close(found, theirs.double(), rtol=1e-5, atol=1e-6)
