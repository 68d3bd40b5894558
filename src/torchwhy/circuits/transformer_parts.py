"""The parts of a transformer: its blocks, the heads of its attention, and what reads and writes the residual stream."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.layer import Layer

if TYPE_CHECKING:
    from torchwhy.problem import Problem

ATTENTION_NAMES = re.compile(r"attention|attn", re.IGNORECASE)
FEED_FORWARD_NAMES = re.compile(r"mlp|feed_?forward|ffn|moe|dense(relu|act|gated)", re.IGNORECASE)
NORM_NAMES = re.compile(r"norm", re.IGNORECASE)
PROJECTIONS = ("o_proj", "c_proj", "out_proj", "o", "to_out", "wo", "proj", "dense")  # of what the heads found


@dataclass(frozen=True)
class Component:
    """A part of a transformer that reads the residual stream, and adds to it.

    Args:
        name: what it is called in tables and pictures.
        reads: where the residual stream goes into it, before its norm: such as ``tw.Layer("h.0.ln_1", input=True)``; None for
            the embeddings, which begin the stream.
        writes: what it adds; None for the output, which ends the stream.
        stack: components of different stacks, such as an encoder and a decoder, have no stream in common.
    """

    name: str
    reads: Layer | None = None
    writes: Layer | None = None
    stack: str = ""


def find_blocks(model: nn.Module) -> list[Layer]:
    """Return the blocks of a transformer: the modules of one class, in a list or sequence, that hold an attention each.

    Raises:
        LookupError: there are none.
    """
    return [Layer(name, output=0) for stack in _stacks(model).values() for name in stack]


def _stacks(model: nn.Module) -> dict[str, list[str]]:
    """Return the names of the blocks of each stack, by the stack's name."""
    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or not len(module):
            continue
        if any(name.startswith(f"{outer}.") for outer in found):
            continue
        alike = len({type(block) for block in module}) == 1
        if alike and all(any(_is(ATTENTION_NAMES, n, m) for n, m in block.named_modules()) for block in module):
            found[name] = [f"{name}.{i}" if name else str(i) for i in range(len(module))]
    if not found:
        raise LookupError(
            "layer: no blocks with an attention were found in the model; name the layers, as layer=['h.0', 'h.1']"
        )
    return found


def _is(kind: re.Pattern[str], name: str, module: nn.Module) -> bool:
    """Say whether a module is of a kind, by its name where it stands, or its class."""
    return bool(kind.search(name.rpartition(".")[2]) or kind.search(type(module).__name__))


def _outermost(kind: re.Pattern[str], block: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of the outermost modules of a kind in a block, those that only hold another one beside a norm left out."""
    found: list[str] = []
    for name, module in modules.items():
        inside = name.startswith(f"{block}.") and not any(name.startswith(f"{outer}.") for outer in found)
        children = list(module.named_children())
        held = any(_is(kind, n, m) and len(list(m.children())) for n, m in children)
        wraps = held and any(_is(NORM_NAMES, n, m) for n, m in children)
        if inside and _is(kind, name, module) and not _is(NORM_NAMES, name, module) and children and not wraps:
            found.append(name)
    return found


def find_head_layers(model: nn.Module) -> list[Layer]:
    """Return where the heads of each attention lie side by side: what goes into its output projection.

    Raises:
        LookupError: an attention has no projection of a known name.
    """
    modules, found = dict(model.named_modules()), []
    for block in find_blocks(model):
        for attention in _outermost(ATTENTION_NAMES, str(block.module), modules):
            inside = [f"{attention}.{name}" for name in PROJECTIONS]
            projection = next((name for name in inside if name in modules), None)
            if projection is None:
                raise LookupError(
                    f"layer: {attention!r} has no output projection of a known name ({', '.join(PROJECTIONS)}); name the layers, "
                    "as layer=[tw.Layer('h.0.attn.c_proj', input=True)], and heads="
                )
            found.append(Layer(projection, input=True))
    if not found:
        raise LookupError("layer: no attention with heads was found in the blocks; name the layers, and heads=")
    return found


def number_of_heads(model: nn.Module, projection: str, width: int) -> int:
    """Return how many heads lie side by side in the input of an output projection.

    Raises:
        ValueError: neither the attention around it nor the model's configuration says so.
    """
    attention = model.get_submodule(projection.rpartition(".")[0])
    for name in ("head_dim", "key_value_proj_dim", "attention_head_size"):
        if isinstance(size := getattr(attention, name, None), int) and size > 0 and width % size == 0:
            return width // size
    for holder in (attention, getattr(model, "config", None)):
        for name in ("num_heads", "n_heads", "num_attention_heads", "n_head"):
            if isinstance(count := getattr(holder, name, None), int) and count > 0 and width % count == 0:
                return count
    raise ValueError(f"heads: how many lie in the {width} numbers at {projection!r} is not known; give heads=")


def find_components(problem: Problem) -> list[Component]:
    """Return the components of a transformer whose blocks norm what they read, from the embeddings to the output.

    They are found by names, and by the order in which they run on the first row.

    Raises:
        LookupError: a part without a norm before it, or a stack without one behind it, as where the norms come after the parts.
    """
    model = problem.model
    modules, stacks = dict(model.named_modules()), _stacks(model)
    parts = {
        name: block
        for stack in stacks.values()
        for block in stack
        for kind in (ATTENTION_NAMES, FEED_FORWARD_NAMES)
        for name in _outermost(kind, block, modules)
    }
    parts = {n: b for n, b in parts.items() if not any(n.startswith(f"{other}.") for other in parts if other != n)}
    norms = [n for n, m in modules.items() if _is(NORM_NAMES, "", m) and not any(n.startswith(f"{p}.") for p in parts)]
    order = _order_of_calls(problem, {name: modules[name] for name in (*parts, *norms)})
    found: list[Component] = []
    for stack, blocks in stacks.items():
        places = [i for i, name in enumerate(order) if parts.get(name) in blocks]
        here: list[Component] = []
        for i, place in enumerate(places):
            before = order[(places[i - 1] + 1 if i else 0) : place]
            after = order[place + 1 : places[i + 1] if i + 1 < len(places) else len(order)]
            block = parts[order[place]]
            own = [name for name in before if name in norms and name.startswith(f"{block}.")]
            shared = here[-1].reads if here and not own else None  # parts side by side read one norm
            reads = Layer(own[-1], input=True) if own else shared
            if reads is None:
                raise _no_norm(order[place])
            behind = [name for name in after if name in norms and name.startswith(f"{block}.")]
            follows = order[places[i + 1]] if i + 1 < len(places) else ""
            is_last = parts.get(follows) != block
            posts = behind if is_last else behind[:-1]
            writes = Layer(posts[0] if posts else order[place], output=0)
            here.append(Component(order[place], reads, writes, stack))
        last = order[places[-1] + 1 :]
        final = next((name for name in last if name in norms and not name.startswith(f"{blocks[-1]}.")), None)
        if final is None or here[0].reads is None:
            raise _no_norm(stack)
        found += [
            Component(f"{stack} embeddings" if len(stacks) > 1 else "embeddings", None, here[0].reads, stack),
            *here,
        ]
        found.append(
            Component(f"{stack} output" if len(stacks) > 1 else "output", Layer(final, input=True), None, stack)
        )
    return found


def check_stream(
    components: Sequence[Component], writes: Sequence[Tensor], reads: Sequence[Tensor], *, senders: Sequence[Component]
) -> None:
    """Refuse components that were found and do not add up to the stream that the output reads: a part is missing among them.

    Args:
        components: all of them.
        writes, reads: what is written and read there, ``(N, ...)``: by the senders, and by the components that read.
        senders: those that write.

    Raises:
        LookupError: they do not.
    """
    receivers = [c for c in components if c.reads is not None]
    for receiver, stream in zip(receivers, reads):
        if receiver.writes is not None:
            continue
        total = torch.stack([w.double() for c, w in zip(senders, writes) if c.stack == receiver.stack]).sum(0)
        off = float((total - stream).abs().max() / stream.abs().max())
        if off > 0.01:
            names = ", ".join(names_of_layers([c.name for c in senders if c.stack == receiver.stack]))
            raise LookupError(
                f"components: {names} were found, and do not add up to what {receiver.name!r} reads (off by {off:.0%}): a part "
                "has a name of its own, or adds the stream itself; give components=, a list of tw.circuits.Component"
            )


def _no_norm(name: str) -> LookupError:
    """Return the error for a part that reads no norm of its own."""
    return LookupError(
        f"components: {name!r} has no norm at the place where it reads the residual stream, or none ends it; give components=, a "
        "list of tw.circuits.Component"
    )


def _order_of_calls(problem: Problem, modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of modules in the order in which they begin on the first row."""
    order: list[str] = []
    handles = []
    try:
        for name, module in modules.items():

            def note(module: nn.Module, args: tuple, name: str = name) -> None:
                order.append(name)

            handles.append(module.register_forward_pre_hook(note))
        with torch.no_grad():
            problem.run.first_row()
    finally:
        for handle in handles:
            handle.remove()
    return order


def names_of_layers(layers: Sequence[object]) -> list[str]:
    """Return short names of layers: without what all of them begin with."""
    parts = [str(getattr(layer, "name", layer)).split(".") for layer in layers]
    dotted, common = [p for p in parts if len(p) > 1], 0
    while dotted and all(len(p) > common + 1 for p in dotted) and len({p[common] for p in dotted}) == 1:
        common += 1
    return [".".join(p[common:] if len(p) > 1 else p) for p in parts]
