"""``torchwhy explain --text``: why a language model goes on as it does, or a classifier says what it says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from torchwhy.cli.arguments import say
from torchwhy.cli.outputs import check_outputs
from torchwhy.cli.texts_tables import explain_by_each, methods_named, outputs_asked_for, write_found

if TYPE_CHECKING:
    from torchwhy.engine.structure import Keywords
    from torchwhy.explanation import Explanation
    from torchwhy.models.language import TextModel
    from torchwhy.samples.sample import Sample
    from torchwhy.targets import TargetLike

SMOLLM2 = "smollm2"
SHOWN = 8  # units that are printed


def explain_text(args: argparse.Namespace, settings: Keywords) -> None:
    """Explain the text that was given, and write what was found.

    Raises:
        ValueError: a mistake in what was asked for.
    """
    from torchwhy.models.language import TextModel, load_folder, load_smollm2

    if args.classes:
        raise ValueError("--classes: is for pictures and tables; a classifier of texts has the names of its classes")
    outs = outputs_asked_for(args)
    check_outputs(outs, [args.model])
    methods = methods_named(args.method, "text")
    name = args.model or SMOLLM2
    loaded = TextModel(*load_smollm2(), (), False) if name == SMOLLM2 else load_folder(Path(name))
    loaded.model.to(args.device)
    sample, target = _sample(args, loaded)
    found = explain_by_each(args, methods, loaded.model, settings, lambda method: method.explain(sample, target))
    for method, e in found.items():
        said = e.details.get("response")
        say(args, method + (f": {' '.join(said[0])}" if said else ""), *_lines_of_units(e)[:SHOWN])
    label = loaded.labels[target] if loaded.labels and isinstance(target, int) else None
    row: Keywords = {"text": args.text, "target": args.target, "label": label}
    write_found(args, found, [row], {"model": name}, outs)


def _sample(args: argparse.Namespace, loaded: TextModel) -> tuple[Sample, TargetLike]:
    """Return the text as the model takes it, and what is explained.

    Raises:
        ValueError: a response of a classifier, or a label that it has not.
    """
    from torchwhy.models import find_label
    from torchwhy.samples.prompt import Prompt
    from torchwhy.samples.text import Text
    from torchwhy.targets import LogProb

    if loaded.classifies:
        if args.response is not None:
            raise ValueError("--response: is for language models; this one classifies, give --target")
        target = "predicted" if args.target == "predicted" else find_label(loaded.labels, args.target)
        absent = "mask" if getattr(loaded.tokenizer, "mask_token_id", None) is not None else "remove"
        return Text(loaded.tokenizer, args.text, units=args.units, absent=absent), target
    token = None if args.target == "predicted" else LogProb(args.target)
    if token is not None and args.response is not None:
        raise ValueError("--target: a token that comes next; it does not go together with --response")
    return Prompt(loaded.tokenizer, args.text, args.response, units=args.units), token


def _lines_of_units(e: Explanation) -> list[str]:
    """Return the units, those that speak for the target the most first."""
    values, names = e.features()[0], (e.names or [[]])[0]
    return [f"{float(values[i]):+10.3g}  {names[i]}" for i in values.argsort(descending=True).tolist()]
