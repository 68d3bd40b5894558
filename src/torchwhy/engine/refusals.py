"""What is said where a question makes no sense, in words that name what would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from torchwhy.arguments import Argument, Ragged
from torchwhy.engine.structure import SINGLE, Model, flatten


def refuse_besides_sample(**given: object) -> None:
    """Refuse what a sample knows by itself.

    Raises:
        TypeError: it is given besides.
    """
    for name, value in given.items():
        if value is not None:
            name = "additional_forward_args" if name == "arguments" else name
            raise TypeError(f"{name}: the sample has its own; leave them out, or give them to the sample")


def refuse_inputs(given: Sequence[object]) -> NoReturn:
    """Refuse inputs that are no tensors."""
    marks = [t for t in given if isinstance(t, (Argument, Ragged))]
    kinds = ", ".join(f"tw.{type(t).__name__}" if t in marks else type(t).__name__ for t in given) or "nothing"
    hint = "; such marks are for additional_forward_args" if any(isinstance(t, Argument) for t in marks) else ""
    hint = "; rows of several shapes are for methods alone" if marks and not hint else hint
    if any(isinstance(t, str) for t in given):
        hint = "; texts are given with their tokenizer, as tw.Text or tw.Prompt"
    unusual = [t for t in given if isinstance(t, Tensor) and is_unusual(t)]
    if unusual:
        raise TypeError(
            "inputs: expected dense tensors with values; of a nested one give tw.Ragged or its .to_padded_tensor(0.0), of a "
            "sparse one its .to_dense(), and a meta tensor has no values"
        )
    raise TypeError(f"inputs: expected a tensor (N, ...), or a tuple or dict of them; got {kinds}{hint}")


ABOUT_TOKENS = ("attention_mask", "padding_mask", "pixel_mask", "token_type_ids", "position_ids", "grid_thw")


def refuse_facts_about_tokens(tensors: Sequence[Tensor], names: Sequence[str], feature_mask: object) -> None:
    """Refuse to mask what says how other inputs are to be read, as if it were a feature.

    Args:
        tensors: the inputs.
        names: what the model calls them.
        feature_mask: as the caller gave it; what it numbers is meant.

    Raises:
        TypeError: whole numbers called ``attention_mask``, ``token_type_ids``, ``position_ids`` and the like beside other inputs.
    """
    masks, form = flatten(feature_mask)
    meant = {} if form is SINGLE else dict(zip(form.names or names, masks))
    facts = [
        name
        for name, t in zip(names, tensors)
        if name.endswith(ABOUT_TOKENS) and not t.is_floating_point() and meant.get(name) is None
    ]
    others = [name for name in names[: len(tensors)] if name not in facts]
    if not facts or not others:
        return
    told = ", ".join(f"{name!r}: ..." for name in facts)
    raise TypeError(
        f"inputs: {', '.join(map(repr, facts))} would be masked as features, and only say how the others are read: give them as "
        f"additional_forward_args={{{told}}} beside inputs={{{', '.join(f'{name!r}: ...' for name in others)}}}, or texts as "
        "tw.Text or tw.Prompt; where their absence is meant, number them in feature_mask"
    )


def is_unusual(t: Tensor) -> bool:
    """Say whether a tensor has no values that could be masked: nested, sparse, on the meta device."""
    return t.is_nested or t.is_meta or t.layout is not torch.strided


def refuse_torchscript() -> NoReturn:
    """Refuse the layers of TorchScript, which cannot be watched."""
    raise TypeError(
        "layer: the model is TorchScript, whose layers cannot be watched; give the nn.Module that it was made from"
    )


def refuse_without_gradient(
    model: Model, tensors: Sequence[Tensor], *, begins_at_layer: bool, does_without: str = ""
) -> NoReturn:
    """Refuse inputs that are no real numbers where a gradient is needed, and say what would do.

    A method that ``begins_at_layer`` explains embeddings in the place of their ids; ``does_without`` is how else it goes on.
    """
    if any(t.is_complex() for t in tensors):
        raise TypeError(
            "inputs: a complex number is explained by its two parts; pass torch.view_as_real(inputs) to a model that begins with "
            "torch.view_as_complex"
        )
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    tables = [name for name, m in modules if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    by_layer = begins_at_layer and bool(tables)
    instead = (
        f"explain by the embedding layer, layer={tables[0]!r}" if by_layer else "pass their embeddings as the inputs"
    )
    instead = does_without or instead
    raise TypeError(f"inputs: integers have no gradient; {instead}, or give them as additional_forward_args")


def refuse_layer_of_graph(name: str, graph: str) -> NoReturn:
    """Refuse a layer inside of a graph, where it does not run by itself."""
    raise TypeError(
        f"layer={name!r}: {f'module {graph!r}' if graph else 'the model'} is a graph, scripted, traced or exported, in which no "
        "layer runs by itself; give the nn.Module that it came from"
    )


def refuse_layer_in_transform(layer: object) -> NoReturn:
    """Refuse to read a layer inside of a transform of ``torch.func``."""
    raise LookupError(
        f"{layer} runs inside a transform of torch.func, such as vmap, where it passes one row at a time: choose a layer "
        "outside of it"
    )
