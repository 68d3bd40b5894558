"""Randomization: does the explanation change when what it explains does? The method explains again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from torchwhy.attribution import Attribution
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, draw_normal, make_generator
from torchwhy.input_types import Inputs
from torchwhy.metrics.correlation import rank_similarity
from torchwhy.metrics.curve import Curve
from torchwhy.metrics.definition import metric
from torchwhy.metrics.reexplain import Data, copy_method, explain_again, make_deterministic
from torchwhy.metrics.scoring import problem_of
from torchwhy.targets import Target, TargetLike, find_logits


@metric(higher_is_better=False, range=(-1, 1), paper="arXiv:1810.03292")
@torch_defaults()
def model_randomization(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    mode: Literal["cascading", "independent"] = "cascading",
    layers: str | Sequence[str] | None = None,
    absolute: bool = True,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Curve:
    r"""Measure how similar the explanation stays as the network's weights are replaced by random ones, from the output downwards.

    The similarity is the rank correlation of the absolute attributions with those of the untouched network. A method that
    shows what the network has learnt falls to 0; one that stays near 1 (an edge detector is the extreme) does not look at
    the weights.

    Weights are drawn from the normal distribution with each parameter's own mean and standard deviation; running
    statistics are kept. All this happens on a copy of the network.

    Args:
        method, inputs, target, data: as for :func:`torchwhy.metrics.sensitivity_max`; the target must be given as
            indices or a function, not as "predicted", which would change with the weights.
        mode: randomize on top of the layers before ("cascading") or one at a time ("independent").
        layers: dotted names, from the output downwards; None takes the network's direct children that have weights
            that are not all alike, the last registered first.
        absolute: compare absolute attributions; False compares them with their signs.
        generator: where the weights come from.

    Returns:
        A :class:`Curve`: the share of the layers done (L + 1,), similarities (N, L + 1), the first of them 1. NaN where the
        attributions of the untouched network are constant; 0 where only the later ones are.

    Paper: Adebayo et al. 2018, arXiv:1810.03292, section 3.1; there the weights come from the initializer.
    """
    if isinstance(target, str):
        raise ValueError(f"target={target!r}: would change with the weights; give the classes")
    method, data = make_deterministic(method, inputs, data)
    draws, (other, there) = make_generator(generator), copy_method(method, target)
    names = [layers] if isinstance(layers, str) else layers
    names = _layers_with_weights(other.model) if names is None else list(names)
    if not names:
        raise ValueError("layers: none given")
    modules = [_find_layer(other.model, name) for name in names]
    bare = [name or "the model" for name, m in zip(names, modules) if not _has_varied_weights(m)]
    if bare:
        raise ValueError(f"layers: {', '.join(bare)}: no weights that could be made random (none, or all alike)")
    start = explain_again(method, inputs, target, data)
    found = [rank_similarity(start, start, absolute=absolute)]
    with torch.inference_mode(False):
        own = [(p, p.detach().clone()) for p in other.model.parameters()] if mode == "independent" else []
        for module in modules:
            with torch.no_grad():
                for p, value in own:
                    p.copy_(value)
            randomize(module, draws)
            found.append(rank_similarity(start, explain_again(other, inputs, there, data), absolute=absolute))
    shares = torch.linspace(0, 1, len(found), dtype=torch.double, device=start.device)
    return Curve(shares, torch.stack(found, 1), "layers made random, one after the other", (-1.0, 1.0))


@metric(higher_is_better=False, range=(-1, 1), paper="arXiv:1912.09818")
@torch_defaults()
def random_logit(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    absolute: bool = True,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    """Compute the similarity between the explanations of the target and of another class, target + offset, (N,).

    The offset is drawn at random, one for all rows. The similarity is the rank correlation of the absolute attributions; a
    method that cannot tell classes apart stays at 1. NaN where the target's attributions are constant; 0 where only the
    other's are.

    Args:
        method, inputs, target, absolute, generator, data: as for :func:`model_randomization`; the target is a class.

    Paper: Sixt et al. 2020, arXiv:1912.09818, section 4, where the similarity is structural.
    """
    method, data = make_deterministic(method, inputs, data)
    problem = problem_of(method.model, inputs, target, like=method, generator=generator, **data)
    with problem.open():
        out = find_logits(problem.run.outputs(tuple(x[:1] for x in problem.x), problem.rows[:1]))
    chosen = problem.target
    if not isinstance(chosen, Target) or chosen.index is None or chosen.neuron or out.dim() != 2 or out.shape[1] < 2:
        raise ValueError(
            "target: random_logit explains another class in its place; it needs a class of an output (N, classes)"
        )
    index = torch.as_tensor(chosen.index)
    if index.shape[-1] != 1:
        raise ValueError(f"target: {index.shape[-1]} indices given for an output (N, classes)")
    own = index.expand(problem.n, -1)[:, 0].cpu()
    step = torch.randint(1, out.shape[1], (1,), generator=problem.generator)
    others = ((own + step) % out.shape[1]).tolist()
    a, b = explain_again(method, inputs, own.tolist(), data), explain_again(method, inputs, others, data)
    return rank_similarity(a, b, absolute=absolute)


def randomize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the module's parameters anew, in place, each from a normal distribution of its mean and deviation."""
    with torch.no_grad():
        for p in module.parameters():
            if p.is_floating_point():
                noise = draw_normal(*p.shape, generator=generator).to(p)
                p.copy_(p.mean() + noise * p.std(correction=0))


def _has_varied_weights(module: nn.Module) -> bool:
    """Tell whether drawing the parameters anew changes any: not those of a batch norm that was never trained."""
    return any(p.is_floating_point() and bool((p != p.flatten()[:1]).any()) for p in module.parameters())


def _layers_with_weights(model: nn.Module) -> list[str]:
    """Return the names of the children that have weights to draw, the last first; those of an only child in its place."""
    prefix = ""
    while True:
        found = [(name, m) for name, m in model.named_children() if _has_varied_weights(m)]
        if len(found) != 1 or not list(found[0][1].children()):
            break
        prefix, model = f"{prefix}{found[0][0]}.", found[0][1]
    names = [prefix + name for name, _ in reversed(found)]
    return names or [prefix.rstrip(".")]


def _find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the layer of that name.

    Raises:
        LookupError: there is none.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = ", ".join(n for n, _ in model.named_children())
        raise LookupError(f"layers: the model has no layer {name!r}; its children are {known}") from None
