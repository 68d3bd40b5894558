"""Every method equals its second, slow version in float64, draw by draw."""

import pytest
import torch
from nets import inputs, make
from reference import gradient as slow
from reference import path as slow_path

import torchwhy as tw
from torchwhy.engine.run.randomness import make_generator, normal_draws

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
NET, X = make("conv"), inputs("conv", 2)
B = inputs("conv", 4, seed=7)
RULES = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]


def score(x):
    return NET(x)[:, 2]


def by_row(function):
    return torch.cat([function(X[i : i + 1]) for i in range(len(X))])


def below(x):
    return NET.conv1(x)


def above(a):
    a = NET.relu(a.clone())
    return NET.head(torch.relu(NET.norm(NET.conv2(a)) + a).mean((2, 3)))[:, 2]


@pytest.mark.parametrize("channels", [None, "max", "norm", "sum"])
def test_saliency(channels):
    torch.testing.assert_close(
        tw.Saliency(NET, channels=channels).attribute(X, 2),
        by_row(lambda x: slow.saliency(score, x, channels)),
        **CLOSE,
    )


def test_signed_saliency_and_input_x_gradient():
    torch.testing.assert_close(
        tw.Saliency(NET, signed=True).attribute(X, 2), by_row(lambda x: slow.gradient(score, x)), **CLOSE
    )
    torch.testing.assert_close(
        tw.InputXGradient(NET).attribute(X, 2), by_row(lambda x: slow.input_x_gradient(score, x)), **CLOSE
    )


def test_signed_channels_keep_the_largest_and_its_sign():
    g = by_row(lambda x: slow.gradient(score, x))
    found = tw.Saliency(NET, signed=True, channels="max").attribute(X, 2)
    torch.testing.assert_close(found.abs(), g.abs().amax(1, keepdim=True), **CLOSE)
    assert ((g == found).sum(1) >= 1).all()


NOISE = normal_draws(X, make_generator(5))[torch.arange(9)].double()


@pytest.mark.parametrize("options", [{"noise_level": 0.2}, {"stdevs": 0.3}], ids=str)
def test_noise_methods(options):
    def sigma(x):
        return options.get("stdevs") or slow.relative_sigma(x, options["noise_level"])

    given = {**options, "n_samples": 9, "generator": 5}
    signed = by_row(lambda x: slow.smoothgrad(score, x, NOISE, sigma(x)))
    torch.testing.assert_close(tw.SmoothGrad(NET, signed=True, **given).attribute(X, 2), signed, **CLOSE)
    torch.testing.assert_close(tw.SmoothGrad(NET, **given).attribute(X, 2), signed.abs(), **CLOSE)
    torch.testing.assert_close(
        tw.SmoothGrad(NET, of=tw.Saliency(NET), **given).attribute(X, 2),
        by_row(lambda x: slow.smoothgrad(score, x, NOISE, sigma(x), of=slow.saliency)),
        **CLOSE,
    )
    torch.testing.assert_close(
        tw.SquareGrad(NET, **given).attribute(X, 2),
        by_row(lambda x: slow.squaregrad(score, x, NOISE, sigma(x))),
        **CLOSE,
    )
    torch.testing.assert_close(
        tw.VarGrad(NET, **given).attribute(X, 2), by_row(lambda x: slow.vargrad(score, x, NOISE, sigma(x))), **CLOSE
    )


def test_the_variance_survives_a_large_mean():
    """A variance of 1 around a mean of 1e6, in float32."""
    net = torch.nn.Linear(4, 1).eval()
    e = tw.SmoothGrad(
        lambda x: net(x)[:, 0] * 0 + (1e6 * x + 0.5 * x**2).sum(1), n_samples=400, stdevs=1.0, signed=True, generator=0
    ).explain(torch.zeros(1, 4))
    torch.testing.assert_close(e.standard_error, torch.full((1, 4), 1 / 20), rtol=0.15, atol=0)


def test_zero_noise_is_saliency():
    for method in (tw.SmoothGrad(NET, noise_level=0), tw.SmoothGrad(NET, stdevs=0.0, of=tw.Saliency(NET))):
        torch.testing.assert_close(method.attribute(X, 2), tw.Saliency(NET).attribute(X, 2), **CLOSE)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("multiply", [True, False])
def test_integrated_gradients(rule, multiply):
    plain = "trapezoid" if rule == "riemann_trapezoid" else rule
    ig = tw.IntegratedGradients(NET, n_steps=11, method=rule, multiply_by_inputs=multiply)
    torch.testing.assert_close(
        ig.attribute(X, 2, baselines=B[0]),
        by_row(lambda x: slow.integrated_gradients(score, x, B[:1], 11, plain, multiply)),
        **CLOSE,
    )
    several = by_row(lambda x: slow.averaged_integrated_gradients(score, x, B, 11, plain, multiply))
    torch.testing.assert_close(ig.attribute(X, 2, baselines=tw.Distribution(B)), several, **CLOSE)


def test_a_baseline_for_each_row():
    found = tw.IntegratedGradients(NET, n_steps=7).attribute(X, 2, baselines=B[:2])
    for i in range(2):
        expected = slow.integrated_gradients(score, X[i : i + 1], B[i : i + 1], 7)
        torch.testing.assert_close(found[i : i + 1], expected, **CLOSE)


def test_adaptive_steps_converge_to_many_fixed_ones():
    """Also when trapezoids are put away to bound the memory."""
    many = tw.IntegratedGradients(NET, n_steps=3000, method="riemann_middle").attribute(X, 2)
    e = tw.IntegratedGradients(NET, tolerance=1e-4).explain(X, 2)
    assert max(e.details["n_steps"]) > 128
    torch.testing.assert_close(e.attributions, many, rtol=0.05, atol=2e-3 * many.abs().max().item())
    several = tw.IntegratedGradients(NET, tolerance=0.01).explain(X, 2, baselines=tw.Distribution(B))
    assert len(several.details["n_steps"]) == 8
    change = (score(X) - score(B).mean()).abs()
    assert (several.completeness_gap < 0.05 * change.detach().clamp(min=0.2)).all()


def test_sampled_paths():
    g = make_generator(5)
    alphas = torch.rand(9, generator=g, dtype=torch.double)
    drawn = B[torch.randint(4, (9,), generator=g)]
    given = {"n_samples": 9, "generator": 5}
    torch.testing.assert_close(
        tw.ExpectedGradients(NET, **given).attribute(X, 2, baselines=B),
        by_row(lambda x: slow.expected_gradients(score, x, drawn, alphas)),
        **CLOSE,
    )
    noise = normal_draws(X, g)[torch.arange(9)].double()
    torch.testing.assert_close(
        tw.GradientSHAP(NET, stdevs=0.2, **given).attribute(X, 2, baselines=B),
        by_row(lambda x: slow.gradient_shap(score, x, drawn, alphas, noise, 0.2)),
        **CLOSE,
    )


@pytest.mark.parametrize("method", [tw.ExpectedGradients, tw.GradientSHAP])
def test_sampled_paths_converge_to_integrated_gradients_within_their_error(method):
    exact = tw.IntegratedGradients(NET, n_steps=300).attribute(X, 2, baselines=tw.Distribution(B))
    off = []
    for seed in range(25):  # the errors of one seed go together, as its draws are shared
        e = method(NET, n_samples=150, generator=seed).explain(X, 2, baselines=B)
        off.append((e.attributions - exact).abs() / e.standard_error.clamp(min=1e-12))
    assert 0.9 < (torch.stack(off) < 2).double().mean() < 0.99


@pytest.mark.parametrize("spacing", ["linear", "square"])
def test_blur_ig(spacing):
    sigmas = slow_path.blur_sigmas(3.0, 6, sqrt=spacing == "square")

    def expected(x):
        return slow.path_sum(score, slow_path.blur_path(x, sigmas, boundary="nearest"), "trapezoid")

    torch.testing.assert_close(
        tw.BlurIG(NET, n_steps=6, max_sigma=3.0, spacing=spacing).attribute(X, 2), by_row(expected), **CLOSE
    )


@pytest.mark.parametrize(
    "options", [{}, {"fraction": 0.6, "max_dist": 0.3}, {"anchors": 2}, {"max_dist": 1.0}], ids=str
)
def test_guided_ig(options):
    found = tw.GuidedIG(NET, n_steps=6, **options).attribute(X, 2, baselines=B[0])
    expected = by_row(lambda x: slow_path.guided_ig(score, x, B[:1], 6, **options))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


def test_idgi():
    straight = tw.IDGI(NET, of=tw.IntegratedGradients(NET, n_steps=6)).attribute(X, 2, baselines=B[0])
    expected = by_row(lambda x: slow.idgi(score, slow.straight_path(x, B[:1], 6)))
    torch.testing.assert_close(straight, expected, **CLOSE)
    blurred = tw.IDGI(NET, of=tw.BlurIG(NET, n_steps=6, max_sigma=3.0)).attribute(X, 2)
    sigmas = slow_path.blur_sigmas(3.0, 6)
    expected = by_row(lambda x: slow.idgi(score, slow_path.blur_path(x, sigmas, boundary="nearest")))
    torch.testing.assert_close(blurred, expected, **CLOSE)


@pytest.mark.parametrize("rule", RULES)
def test_conductance_and_internal_influence(rule):
    plain = "trapezoid" if rule == "riemann_trapezoid" else rule
    for batch_size in (None, 3):
        found = tw.Conductance(NET, n_steps=6, method=rule, layer="conv1", batch_size=batch_size).attribute(
            X, 2, baselines=B[0]
        )
        expected = by_row(lambda x: slow.conductance(below, above, x, B[:1], 6, plain))
        torch.testing.assert_close(found, expected, **CLOSE)
        found = tw.InternalInfluence(NET, n_steps=6, method=rule, layer="conv1", batch_size=batch_size)
        expected = by_row(lambda x: slow.internal_influence(below, above, x, B[:1], 6, plain))
        torch.testing.assert_close(found.attribute(X, 2, baselines=B[0]), expected, **CLOSE)


def test_layer_forms():
    ig = tw.IntegratedGradients(NET, n_steps=6, layer="conv1").attribute(X, 2, baselines=B[0])
    expected = by_row(lambda x: slow.integrated_gradients(above, below(x).detach(), below(B[:1]).detach(), 6))
    torch.testing.assert_close(ig, expected, **CLOSE)
    torch.testing.assert_close(tw.LayerActivation(NET, layer="conv1").attribute(X, 2), below(X).detach(), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_a_real_photo_adds_up_within_one_percent(name):
    """With fewer evaluations than 300 equal steps, which do not reach it."""
    from torchwhy.models import load, photo

    loaded = load("efficientnet-lite0")
    x = loaded.preprocess(photo(name))
    target = loaded.model(x).argmax(1).tolist()
    change = (loaded.model(x) - loaded.model(0 * x))[0, target[0]].abs().item()
    e = tw.IntegratedGradients(loaded.model, tolerance=0.01).explain(x, target)
    assert e.completeness_gap.item() <= 0.0101 * change
    assert e.evaluations < 300
