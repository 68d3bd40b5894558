"""Two samples beside one another: a second text or prompt as the baseline of a first one, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from torchwhy.baselines import ResolvedBaseline
from torchwhy.engine.samples import Asked, AskerAboutSample, FeaturesOfSample, through_tensors
from torchwhy.engine.structure import flatten
from torchwhy.samples.sample import Given, Sample

if TYPE_CHECKING:
    from torchwhy.engine.asker import Asker
    from torchwhy.result import Result


@dataclass(frozen=True, eq=False)
class ComparedSample(FeaturesOfSample):
    """A sample that is compared with another one: what is found is not about its features, and has no names of them."""

    def condense(self, result: Result, *, mean: bool) -> Result:
        """Return what a method found as it is."""
        return result


def ask_about_two(asker: Asker, features: FeaturesOfSample, target: Given, other: object) -> Asked:
    """Return the call of a method that compares a sample with another one, ready for the same question, as its baselines.

    Raises:
        TypeError: no other sample.
        ValueError: it has tensors of other sizes, or other arguments: more tokens, or padding at other places.
    """
    name, sample = type(asker).__name__, features.sample
    if not isinstance(other, Sample):
        given = "none was given" if other is None else f"{type(other).__name__} was given"
        raise TypeError(
            f"baselines: {name} compares two inputs of as many tokens; give the other text as a sample too, such as "
            f"baselines=tw.{type(_origin(sample)).__name__}(...); {given}"
        )
    there, tensors = flatten(other.tensors)[0], flatten(sample.tensors)[0]
    sizes = [[tuple(t.shape) for t in of] for of in (tensors, there)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"baselines: a sample with {_counted(sizes[1])} where inputs has {_counted(sizes[0])}; {name} compares token by "
            "token, with the response, where there is one: give texts of as many tokens and the same response"
        )
    _check_same_arguments(sample.arguments or {}, other.arguments or {})
    compared = ComparedSample(sample, features.ids, features.count, None)
    asked = through_tensors(AskerAboutSample(asker, uses_baselines=False), compared, target)
    _, structure = flatten(sample.tensors)
    baselines = structure.restore([ResolvedBaseline(t[None]) for t in there])
    return asked._replace(
        asker=AskerAboutSample(asker, model=asked.asker.model, owner=asker.model), baselines=baselines
    )


def _origin(sample: Sample) -> Sample:
    """Return the sample that a caller made."""
    return getattr(sample, "origin", getattr(sample, "sample", sample))


def _counted(sizes: list[tuple[int, ...]]) -> str:
    return ", ".join(" × ".join(map(str, size)) for size in sizes) + " tokens"


def _check_same_arguments(first: Mapping[str, object], second: Mapping[str, object]) -> None:
    """Refuse another argument, such as an attention mask: the model is called with those of the first sample.

    Raises:
        ValueError: one differs.
    """
    for name in sorted(first.keys() | second.keys()):
        a, b = first.get(name), second.get(name)
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            same = a.shape == b.shape and a.equal(b)
        else:
            same = a is b or a == b
        if not same:
            raise ValueError(
                f"baselines: the sample comes with another {name} than inputs, as where texts of different lengths are filled "
                "up; give texts of as many tokens, row by row"
            )
