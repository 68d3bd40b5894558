"""What a model, an input and torch itself are at a moment, to be compared with what they are later."""

import torch


def of_model(net):
    return {
        "parameters": [
            (n, id(p), type(p), p.requires_grad, p.grad is None, p.data_ptr(), p.detach().clone())
            for n, p in net.named_parameters(remove_duplicate=False)
        ],
        "buffers": {n: (id(b), b.data_ptr(), b.clone()) for n, b in net.named_buffers(remove_duplicate=False)},
        "modes": [m.training for m in net.modules()],
        "hooks": [
            [len(h) for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)]
            for m in net.modules()
        ],
        "attributes": [sorted(vars(m)) for m in net.modules()],
    }


def of_input(x):
    return [(t.clone(), t.requires_grad, t.grad is None, t._version) for t in (x if isinstance(x, tuple) else (x,))]


def of_torch():
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.is_autocast_enabled(),
        torch.get_rng_state(),
        torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        torch.backends.cudnn.enabled,
        torch.are_deterministic_algorithms_enabled(),
    )


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b
