"""The model, its parameters, the inputs, the attributions and torch itself are as before a metric ran."""

import pytest
import torch
from metric_cases import Scene, each_metric, metrics_that
from traces import of_input, of_model, of_torch, same

import torchwhy as tw


def state(scene):
    return of_model(scene.net), *(of_input(t) for t in (scene.x, scene.a, scene.b, scene.mask)), of_torch()


class Broken(Exception):
    pass


@each_metric
def test_nothing_is_left(case):
    scene = Scene.make()
    scene.net.conv2.weight.requires_grad_(False)  # one that was frozen stays so, the others do not become so
    before = state(scene)
    case.measure(scene, batch_size=2)
    assert same(before, state(scene))


@metrics_that(need="model method")
@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
def test_nothing_is_left_by_an_error(case, error):
    scene, calls, forward = Scene.make(), [], None

    def fails(*args):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return forward(*args)

    forward, scene.net.norm.forward = scene.net.norm.forward, fails
    before = state(scene)
    with pytest.raises(error):
        case.measure(scene, batch_size=1)
    assert same(before, state(scene))


@each_metric
def test_inputs_that_want_a_gradient_no_grad_and_inference_mode(case):
    scene = Scene.make()
    plain = case.measure(scene)
    scene.x.requires_grad_(True)
    scene.a.requires_grad_(True)
    with torch.no_grad():
        torch.testing.assert_close(case.measure(scene), plain, rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(case.measure(scene), plain, rtol=0, atol=0)
    found = case.measure(scene)
    assert not found.requires_grad
    assert scene.x.grad is None
    assert scene.a.grad is None


@metrics_that(need="method")
def test_the_method_is_left_as_it_was(case):
    scene, generator = Scene.make(), torch.Generator().manual_seed(3)
    of = tw.Saliency(scene.net)
    method = tw.SmoothGrad(scene.net, of=of, n_samples=2, generator=generator)
    settings = method.settings()
    case.measure(scene, method=method)
    assert method.settings() == settings
    assert method.generator is generator
    assert method.of is of
