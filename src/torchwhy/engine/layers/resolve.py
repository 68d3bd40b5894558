"""Which layer is meant: a module, one of its calls, one of its tensors, found in a model by its name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Layer:
    """A place in a model: one module, one of its calls, one of its tensors.

    Args:
        module: the module, or its dotted name (``"layer4.1.conv2"``).
        call: which call of a module that runs several times in one forward pass, from 0.
        output: which of several tensors: an index or key of its output, or of its arguments with ``input=True``.
        input: the tensor that goes into the module, not the one that comes out.
    """

    module: nn.Module | str
    call: int | None = None
    output: int | str | None = None
    input: bool = False


LayerLike = Layer | str | nn.Module


@dataclass(frozen=True)
class ResolvedLayer:
    """A :class:`Layer` found in a model."""

    name: str
    module: nn.Module
    call: int | None
    output: int | str | None
    input: bool

    def __str__(self) -> str:
        return f"{'the input of ' if self.input else ''}layer {self.name!r}"


def resolve_layer(model: nn.Module, layer: LayerLike, *, input: bool = False) -> ResolvedLayer:
    """Return the place that ``layer`` names in ``model``; ``"embeddings"`` is where token ids become vectors.

    Raises:
        LookupError: no such layer (with the nearest names), or a module that is not part of the model.
    """
    where = layer if isinstance(layer, Layer) else Layer(layer)
    if isinstance(where.module, str):
        name = _embedding_layer_name(model) if where.module == "embeddings" else where.module
        try:
            module = model.get_submodule(name)
        except AttributeError:
            names = [n for n, _ in model.named_modules() if n]
            near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[-5:]
            raise LookupError(
                f"layer={name!r}: the model has no such layer; the nearest names are {', '.join(near)}"
            ) from None
    elif isinstance(where.module, nn.Module):
        module = where.module
        name = next((n for n, m in model.named_modules() if m is module), "")
        if module is not model and not name:
            raise LookupError(f"layer={type(module).__name__}(...): this module is not part of the model")
    else:
        raise TypeError(f"layer={where.module!r}: expected a module, its dotted name or tw.Layer")
    return ResolvedLayer(name, module, where.call, where.output, where.input or input)


def _embedding_layer_name(model: nn.Module) -> str:
    """Return the name of what ``layer="embeddings"`` means.

    A module of that name, the outermost; else the table that the model says takes its token ids; else its only table.
    """
    modules = dict(model.named_modules())
    named = sorted((n for n in modules if n.rpartition(".")[2] == "embeddings"), key=lambda n: n.count("."))
    if named:
        return named[0]
    says = getattr(model, "get_input_embeddings", None)
    table = says() if says is not None else None
    tables = [n for n, m in modules.items() if (m is table if table is not None else isinstance(m, nn.Embedding))]
    if len(tables) != 1:
        found = f"{len(tables)} embedding tables, {', '.join(tables)}: name one" if tables else "no embedding table"
        raise LookupError(f"layer='embeddings': the model has {found}")
    return tables[0]
