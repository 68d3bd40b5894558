"""``layer="embeddings"``: the table that turns the token ids that are given into vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.layer import ResolvedLayer, resolve_layer

if TYPE_CHECKING:
    from torchwhy.problem import Problem


class Embeddings(NamedTuple):
    """A place where token ids become vectors.

    Args:
        layer: the name of the layer: the table, or the module called ``embeddings`` around it.
        table: the name of the table.
    """

    layer: str
    table: str


def find_embeddings(model: nn.Module) -> list[Embeddings]:
    """Return where token ids may become vectors.

    These are the tables of the outermost modules that say by ``get_input_embeddings`` which one takes their token ids, with those
    that share its weight, as of an encoder and a decoder. Where no module says so: the outermost module called
    ``embeddings``, else all tables.

    Raises:
        LookupError: there is none.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    tables = [name for name, m in modules.items() if isinstance(m, nn.Embedding)]
    weights = {id(t.weight) for t in _declared_tables(modules)}
    if not weights:
        named = sorted((n for n in modules if n.rpartition(".")[2] == "embeddings"), key=lambda n: n.count("."))
        if named:
            inside = [t for t in tables if t == named[0] or t.startswith(f"{named[0]}.")]
            return [Embeddings(named[0], inside[0] if inside else named[0])]
    found = [name for name in tables if not weights or id(modules[name].weight) in weights]
    if not found:
        raise LookupError("layer='embeddings': the model has no embedding table")
    return [Embeddings(_around(name, modules) or name, name) for name in _each_once(found, modules)]


def only_embeddings(model: nn.Module) -> str:
    """Return the name of the only layer where token ids may become vectors.

    Raises:
        LookupError: there is none, or several.
    """
    found = find_embeddings(model)
    if len(found) > 1:
        names = ", ".join(place.layer for place in found)
        raise LookupError(f"layer='embeddings': the model has {len(found)} embedding tables, {names}: name one")
    return found[0].layer


def embeddings_of_inputs(
    problem: Problem, candidates: Sequence[Embeddings]
) -> tuple[list[ResolvedLayer], list[int | None]]:
    """Return the layers that turn the given token ids into vectors, in the order of the inputs, and which input each is of.

    It is tried on the first row.

    Raises:
        LookupError: none runs, or several and it is not clear which is meant.
    """
    given = {k: t[:1] for k, t in enumerate(problem.inputs.tensors) if not t.is_floating_point()}
    seen = _ids_at_tables(problem, [resolve_layer(problem.model, c.table) for c in candidates])
    calls, found = Counter[int](), []
    for k, ids in seen:
        which = next((i for i, t in given.items() if t.shape == ids.shape and bool((t == ids).all())), None)
        found.append((k, calls[k], which))
        calls[k] += 1
    matched = [f for f in found if f[2] is not None] or found
    names = [candidates[k].layer for k, _, _ in matched]
    if not matched:
        raise LookupError("layer='embeddings': no embedding table runs; give the model token ids, or name a layer")
    if len({which for _, _, which in matched}) < len(matched):
        raise LookupError(
            f"layer='embeddings': the model has {len(names)} embedding tables, {', '.join(names)}: name one"
        )
    matched.sort(key=lambda f: -1 if f[2] is None else f[2])
    layers = []
    for k, call, _ in matched:
        place = resolve_layer(problem.model, candidates[k].layer)
        layers.append(ResolvedLayer(place.name, place.module, call if calls[k] > 1 else None, None, False))
    return layers, [which for _, _, which in matched]


def _ids_at_tables(problem: Problem, tables: Sequence[ResolvedLayer]) -> list[tuple[int, Tensor]]:
    """Return what goes into tables while the model runs on its first row: the number of the table, and the ids."""
    seen: list[tuple[int, Tensor]] = []

    def keep(k: int, args: tuple, kwargs: dict) -> None:
        ids = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        if ids is not None:
            seen.append((k, ids))

    handles = []
    try:
        for k, table in enumerate(tables):

            def hook(module: nn.Module, args: tuple, kwargs: dict, k: int = k) -> None:
                keep(k, args, kwargs)

            handles.append(table.module.register_forward_pre_hook(hook, with_kwargs=True))
        with torch.no_grad():
            problem.run.first_row()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _declared_tables(modules: dict[str, nn.Module]) -> list[nn.Embedding]:
    """Return the tables of the outermost modules that say which one takes their token ids."""
    found: dict[str, nn.Embedding] = {}
    for name in sorted(modules, key=lambda n: n.count(".") + bool(n)):
        if any(not outer or name.startswith(f"{outer}.") for outer in found):
            continue
        says = getattr(modules[name], "get_input_embeddings", None)
        try:
            table = says() if callable(says) else None
        except (NotImplementedError, AttributeError, TypeError):  # it has none, or takes pictures
            table = None
        if isinstance(table, nn.Embedding):
            found[name] = table
    return list(found.values())


def _around(table: str, modules: dict[str, nn.Module]) -> str | None:
    """Return the outermost module called ``embeddings`` around a table, None without one.

    One that also makes vectors of pictures, by a convolution, gives more than those of the token ids.
    """
    parts = table.split(".")
    around = [".".join(parts[: i + 1]) for i, part in enumerate(parts[:-1]) if part == "embeddings"]
    return next((name for name in around if not _sees_pictures(modules[name])), None)


def _sees_pictures(module: nn.Module) -> bool:
    return any(isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for m in module.modules())


def _each_once(names: Sequence[str], modules: dict[str, nn.Module]) -> list[str]:
    """Return the names of different modules, the first name of each."""
    first: dict[int, str] = {}
    for name in names:
        first.setdefault(id(modules[name]), name)
    return list(first.values())
