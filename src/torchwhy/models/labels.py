"""Names of classes: ImageNet's, and the way from what a user typed to the number of a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import index

from torchwhy.spelling import did_you_mean

__all__ = ["find_label", "imagenet_labels"]


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 class names of ImageNet, as torchvision has them.

    >>> imagenet_labels()[282]
    'tiger cat'
    """
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def find_label(labels: Sequence[str], label: str | int) -> int:
    """Return the number of a class, from its name, its number, or its number as a string.

    Args:
        labels: the names of the classes. With none only numbers can be looked up, and they are not checked against a number
            of classes.
        label: a name is looked for as it is written; failing that, without regard to capitals.

    Raises:
        ValueError: a number out of range, a name that several classes have (their numbers are listed), or a name that none
            has (the nearest are listed).

    >>> find_label(("cat", "dog"), "Dog"), find_label(("cat", "dog"), "0"), find_label(("cat", "dog"), 1)
    (1, 0, 1)
    """
    text = label.strip() if isinstance(label, str) else str(index(label))
    if text.removeprefix("-").isdecimal():
        number = int(text)
        if number < 0 or (labels and number >= len(labels)):
            upwards = f"to {len(labels) - 1}" if labels else "upwards"
            raise ValueError(f"label: {number} is not the number of a class; they go from 0 {upwards}")
        return number
    if not labels:
        raise ValueError(f"label: the model comes with no class names, so {label!r} cannot be looked up; give a number")
    for same in (str.strip, lambda name: name.strip().casefold()):
        found = [k for k, name in enumerate(labels) if same(name) == same(text)]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"{k} ({labels[k]})" for k in found)
            raise ValueError(f"label: several classes are called {label!r}: {listed}; give the number")
    word = re.compile(rf"\b{re.escape(text)}\b", re.IGNORECASE)
    several = [f"{name} ({k})" for k, name in enumerate(labels) if text and word.search(name)]
    hint = f"; it is part of {', '.join(several[:8])}: give one of these" if several else did_you_mean(text, labels)
    raise ValueError(f"label: no class is called {label!r}{hint}")
