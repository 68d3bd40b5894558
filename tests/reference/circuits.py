"""Patching inside a model, by hooks, one unit at a time. ``model(*args, **kwargs)``; ``score``: output -> (N,).

A *place* is ``(module, input)``: the first tensor that comes out of a module, or that goes into it.
"""

from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def hook(place, act):
    """Let ``act(tensor)`` see what passes a place, and give what goes on."""
    module, is_input = place

    def before(module, args):
        return (act(args[0]), *args[1:])

    def after(module, args, output):
        if isinstance(output, tuple):
            return (act(output[0]), *output[1:])
        return act(output)

    handle = module.register_forward_pre_hook(before) if is_input else module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def read(run, places):
    """What passes places while ``run()`` runs the model."""
    seen = {}

    def keep(i):
        def act(tensor):
            seen[i] = tensor.detach().clone()
            return tensor

        return act

    with ExitStack() as hooks, torch.no_grad():
        for i, place in enumerate(places):
            hooks.enter_context(hook(place, keep(i)))
        run()
    return [seen[i] for i in range(len(places))]


def activation_patching(run, other, score, place, units):
    """f(x) - f(x with a unit as on the other input), for each of the boolean masks ``units``; Meng et al., arXiv:2202.05262."""
    with torch.no_grad():
        whole = score(run())
        (there,) = read(other, [place])
        found = []
        for unit in units:
            with hook(place, lambda t, unit=unit: torch.where(unit, there, t)):
                found.append(whole - score(run()))
    return torch.stack(found, 1)


def gradients(run, score, places):
    """What passes places, and the gradients there, each of a tensor as it goes through that place alone."""
    seen = {}

    def keep(i):
        def act(tensor):
            seen[i] = (tensor if tensor.requires_grad else tensor.detach().requires_grad_()).clone()
            seen[i].retain_grad()
            return seen[i]

        return act

    with ExitStack() as hooks, torch.enable_grad():
        for i, place in enumerate(places):
            hooks.enter_context(hook(place, keep(i)))
        score(run()).sum().backward()
    return [seen[i].detach() for i in range(len(places))], [seen[i].grad for i in range(len(places))]


def attribution_patching(run, other, score, place, units):
    """The sum over each unit of (a(x) - a(b)) times the gradient at x; Syed et al., arXiv:2310.10348, equation 2."""
    (a,), (g,) = gradients(run, score, [place])
    (b,) = read(other, [place])
    return torch.stack([(unit * (a - b) * g).flatten(1).sum(1) for unit in units], 1)


def edge_attribution(run, other, score, writes, reads):
    """(o_s(x) - o_s(b)) times the gradient at what the receiver reads, for all pairs; the same paper. (N, senders, receivers)."""
    found = []
    changes = [a - b for a, b in zip(read(run, writes), read(other, writes))]
    for receiver in reads:
        _, (g,) = gradients(run, score, [receiver])
        found.append(torch.stack([(change * g).flatten(1).sum(1) for change in changes], 1))
    return torch.stack(found, 2)


def path_patching(run, other, score, writes, reads):
    """f(x) - f(x where the receiver alone reads what the sender writes on the other input), for all pairs."""
    rows = []
    changes = [a - b for a, b in zip(read(run, writes), read(other, writes))]
    with torch.no_grad():
        whole = score(run())
        for change in changes:
            row = []
            for receiver in reads:
                with hook(receiver, lambda t, change=change: t - change):
                    row.append(whole - score(run()))
            rows.append(torch.stack(row, 1))
    return torch.stack(rows, 1)


def logit_lens(run, score, places, change=lambda number, state: state):
    """The score where what passes each place stands in the place of what passes the last one. (N, places)."""
    found = []
    with torch.no_grad():
        for number, state in enumerate(read(run, places)):
            with hook(places[-1], lambda t, number=number, state=state: change(number, state)):
                found.append(score(run()))
    return torch.stack(found, 1)


def layer_norm_contributions(parts, final, weight, eps, direction):
    """What each addend of the last stream gives the score through a layer norm whose scale is held; Elhage et al. 2021.

    ``parts``: tensors (N, E) that add up to ``final`` (N, E); ``direction`` (E,): the row of the head, or a difference of rows.
    """
    scale = ((final - final.mean(1, keepdim=True)).square().mean(1, keepdim=True) + eps).sqrt()
    return torch.stack([(((p - p.mean(1, keepdim=True)) / scale * weight) @ direction) for p in parts], 1)
