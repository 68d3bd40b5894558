"""What comes back has the form, shape, type and device of what went in."""

import pytest
import torch
from cases import CASES, each_case
from nets import inputs, make

import torchwhy as tw


def shape_of(case, x):
    if case.shape is not None:
        return (len(x), *case.shape)
    return (len(x), 6, 8, 8) if case.layer == "conv1" else (len(x), 1, 8, 8) if case.maps else tuple(x.shape)


COARSE = {tw.ExtremalPerturbation: 0.85}  # in bfloat16 places for the disc that it begins with score alike


@pytest.mark.filterwarnings("ignore:tolerance=")  # bfloat16 cannot resolve it, and says so
@each_case
@pytest.mark.parametrize("dtype", [torch.double, torch.float, torch.bfloat16], ids=str)
def test_shape_and_type_are_kept(case, dtype):
    net, x = case.setup(dtype)
    found = case.make(net).attribute(x, target=1, **case.data)
    assert found.dtype == dtype
    assert tuple(found.shape) == shape_of(case, x)
    assert not found.requires_grad
    if dtype == torch.double:
        return
    exact = case.make(make(case.net)).attribute(x.double(), target=1, **case.data)
    cosine = torch.cosine_similarity(found.double().flatten(), exact.flatten(), 0)
    assert cosine > (COARSE.get(case.method, 0.9) if dtype == torch.bfloat16 else 0.99999)


@each_case
def test_a_single_row_and_a_strided_input(case):
    net, x = case.setup()
    strided, n = x.transpose(2, 3).contiguous().transpose(2, 3), 1 if case.method.rows_are_independent else len(x)
    one = case.make(net).attribute(strided[:n], target=1, **case.data)
    same = case.make(net).attribute(x[:n].clone(), target=1, **case.data)
    torch.testing.assert_close(one, same, rtol=1e-9, atol=1e-11)


TWO = [
    tw.Saliency,
    tw.InputXGradient,
    tw.SmoothGrad,
    tw.IntegratedGradients,
    tw.ExpectedGradients,
    tw.GuidedIG,
    tw.IDGI,
    tw.FeatureAblation,
    tw.FeaturePermutation,
    tw.LIME,
    tw.ExactShapley,
    tw.KernelSHAP,
    tw.Banzhaf,
    tw.ShapleySampling,
]


@pytest.mark.filterwarnings("ignore:LIME")
@pytest.mark.parametrize("method", TWO, ids=lambda m: m.__name__)
def test_tuples_and_dicts(method):
    net, (a, b) = make("two"), inputs("two")
    options = {"generator": 0} if "generator" in method.__dataclass_fields__ else {}
    of_tuple = method(net, **options).attribute((a, b), target=1)
    of_dict = method(net, **options).attribute({"right": b, "left": a}, target=1)
    assert isinstance(of_tuple, tuple)
    assert list(of_dict) == ["right", "left"]
    assert of_tuple[0].shape == a.shape
    assert of_tuple[1].shape == b.shape
    if not options:  # the draws of several inputs follow their order
        torch.testing.assert_close(of_tuple[0], of_dict["left"])
        torch.testing.assert_close(of_tuple[1], of_dict["right"])
    if method.uses_baselines is True and not method.baselines_are_rows:
        zero = method(net, **options).attribute((a, b), target=1, baselines=(a, b))
        assert zero[0].abs().max() < 1e-12
        assert zero[1].abs().max() < 1e-12


# what these make of their samples is no mean
NO_ERROR = (tw.SquareGrad, tw.VarGrad, tw.SmoothGradCAMPlusPlus, tw.SSCAM)


@pytest.mark.filterwarnings("ignore:LIME")
@pytest.mark.parametrize("case", [c for c in CASES if "generator" in c.options], ids=str)
def test_the_standard_error_has_the_attributions_form(case):
    net, x = case.setup()
    for given in (x, (x,), {"x": x}):
        e = case.make(net).explain(given, 1, **case.data)
        if case.method in NO_ERROR:
            assert e.standard_error is None
            continue
        assert type(e.standard_error) is type(e.attributions)
        assert not isinstance(e.standard_error, dict) or list(e.standard_error) == ["x"]
        (found,), (error,) = (
            (v,) if isinstance(v, torch.Tensor) else tuple(v.values() if isinstance(v, dict) else v)
            for v in (e.attributions, e.standard_error)
        )
        assert error.shape == found.shape


@pytest.mark.parametrize("method", [tw.SmoothGrad, tw.ExpectedGradients, tw.RISE], ids=lambda m: m.__name__)
def test_the_standard_error_of_layers(method):
    net, x = make("conv"), inputs("conv")
    e = method(net, layer=["conv1"], n_samples=4, generator=0).explain(x, 1)
    assert [t.shape for t in e.attributions] == [t.shape for t in e.standard_error]
    assert len(e.attributions) == 1


def test_noise_on_the_inputs_of_a_method_of_layers():
    net, (a, b) = make("two"), inputs("two")
    method = tw.SmoothGrad(net, of=tw.Saliency(net, layer=["a", "b"]), n_samples=4, generator=0)
    e = method.explain({"left": a, "right": b}, 1)
    assert isinstance(e.attributions, tuple)  # as a list of layers gives
    assert [t.shape for t in e.attributions] == [t.shape for t in e.standard_error] == [(3, 3)] * 2


def test_further_arguments_follow_the_rows():
    net, x = make("smooth"), inputs("smooth")
    scale = torch.rand(3, 7, dtype=torch.double)
    found = tw.IntegratedGradients(net, batch_size=4).attribute(x, target=1, additional_forward_args=scale)
    by_name = tw.IntegratedGradients(net).attribute(x, target=1, additional_forward_args={"scale": scale})
    alone = torch.cat(
        [tw.IntegratedGradients(lambda t, i=i: net(t, scale[i])).attribute(x[i : i + 1], target=1) for i in range(3)]
    )
    torch.testing.assert_close(found, alone)
    torch.testing.assert_close(by_name, alone)


@each_case
def test_gradients_are_switched_on_where_it_is_said(case):
    """Known from a second call: the first one may look for its layer, or at its arguments, by gradients."""
    net, x = case.setup()
    case.make(net).attribute(x, 1, **case.data)
    modes = []
    net.register_forward_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    case.make(net).attribute(x, 1, **case.data)
    assert any(modes) == case.method.needs_gradient
