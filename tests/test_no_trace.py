"""The model, its parameters, the inputs and torch itself are as before: after success, an error, an interruption."""

import copy
import gc
import weakref

import pytest
import torch
from cases import each_case


def state(net, x):
    hooks = [
        [len(h) for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)]
        for m in net.modules()
    ]
    return {
        "parameters": [
            (n, p.requires_grad, p.grad is None, p.data_ptr(), p.detach().clone()) for n, p in net.named_parameters()
        ],
        "buffers": {n: b.clone() for n, b in net.named_buffers()},
        "modes": [m.training for m in net.modules()],
        "hooks": hooks,
        "attributes": [sorted(vars(m)) for m in net.modules()],
        "inputs": (x.clone(), x.requires_grad, x.grad is None, x._version),
        "torch": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.is_autocast_enabled(),
            torch.get_rng_state(),
        ),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


class Broken(Exception):
    pass


@each_case
@pytest.mark.parametrize("error", [None, Broken, KeyboardInterrupt], ids=["success", "error", "interrupt"])
@pytest.mark.parametrize("at", [1, 2])
def test_nothing_is_left(case, error, at):
    net, x = case.setup()
    net.conv2.weight.requires_grad_(False)  # one that was frozen stays so, the others do not become so
    calls = []
    forward = net.norm.forward

    def fails(*args):
        calls.append(1)
        if error is not None and len(calls) == at:
            raise error
        return forward(*args)

    net.norm.forward = fails
    before = state(net, x)
    method = case.make(net, batch_size=2)
    if error is None:
        method.attribute(x, target=1, **case.data)
    else:
        with pytest.raises(error):
            method.attribute(x, target=1, **case.data)
    assert same(before, state(net, x))


@each_case
def test_an_input_that_wants_a_gradient_and_no_grad_are_left_alone(case):
    net, x = case.setup()
    x.requires_grad_(True)
    with torch.no_grad():
        first = case.make(net).attribute(x, target=1, **case.data)
    with torch.inference_mode():
        second = case.make(net).attribute(x, target=1, **case.data)
        assert torch.is_inference_mode_enabled()
    assert x.grad is None
    assert x.requires_grad
    assert torch.equal(first, second)


@each_case
def test_a_copy_of_the_model_and_the_method_gives_the_same(case):
    net, x = case.setup()
    method = case.make(net)
    again = copy.deepcopy(method)
    assert torch.equal(method.attribute(x, target=1, **case.data), again.attribute(x, target=1, **case.data))


@each_case
def test_no_memory_is_held(case):
    net, x = case.setup()
    method = case.make(net)
    seen = []
    handle = net.conv1.register_forward_hook(lambda m, i, o: seen.append(weakref.ref(o)))
    e = method.explain(x, target=1, **case.data)
    handle.remove()
    held = {t.data_ptr() for t in (e.attributions, x)}
    gc.collect()
    assert not [r for r in seen if r() is not None and r().data_ptr() not in held]
