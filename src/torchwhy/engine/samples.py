"""How a sample is asked about: as a game of its features, or through the tensors that the model is given.

Methods that mask play the game: their input is ``(N, d)``, 1 where a feature is there, and the model is a :class:`MaskedModel`,
which asks the sample what it sees then. All others work on the sample's tensors, token ids at their embeddings, and what
they find is put together into one number for each feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from torchwhy.arguments import PerRow
from torchwhy.baselines import ResolvedBaseline
from torchwhy.engine.layers.layer import Layer
from torchwhy.engine.run.black_box import as_model
from torchwhy.engine.structure import AnyModel, AnyOutput, Model, Tensors, flatten
from torchwhy.samples.sample import AnyGiven, Given, Sample, names_of_rows, numbers_of

if TYPE_CHECKING:
    from torchwhy.engine.asker import Asker
    from torchwhy.result import Result


@dataclass(frozen=True, eq=False)
class FeaturesOfSample:
    """The features of a sample that is ready, counted.

    Args:
        sample: the sample.
        ids: the number of each element's feature, −1 for none, ``(N or 1, ...)`` for each tensor; none where features are known
            by their names alone.
        count: the number of features of each row, ``(N,)``.
        names: of the features, a list for each row; None where what is explained is not the features.
        is_game: whether the method masks features, ``(N, d)``, and not tensors.
    """

    sample: Sample
    ids: Tensors
    count: Tensor
    names: list[list[str]] | None
    is_game: bool = False

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.count)

    @property
    def d(self) -> int:
        """The largest number of features of a row."""
        return int(self.count.max())

    def numbers(self) -> Tensor:
        """Return the numbers of the features of the game, ``(N or 1, d)``; a row with fewer has zeros there."""
        number = torch.arange(self.d, device=self.count.device)
        if bool((self.count == self.d).all()):
            return number[None]
        return torch.where(number < self.count[:, None], number, 0)

    def element_numbers(self) -> tuple[Tensor, ...]:
        """Return the feature mask of the tensors: what is no feature has the number after a row's last one."""
        return tuple(torch.where(i < 0, self.count.view(-1, *[1] * (i.dim() - 1)), i) for i in self.ids)

    def per_feature(self, values: Sequence[Tensor], *, mean: bool) -> Tensor:
        """Return one number for each feature, ``(N, d)``.

        Args:
            values: ``(N, d)`` of the game; else ``(N, ...)`` that have the sizes of the sample's tensors first, each of them
                of the next such tensor.
            mean: each element has its feature's whole value; else a feature's is the sum over its elements.

        Raises:
            ValueError: values of other sizes.
        """
        if self.is_game:
            missing = torch.arange(self.d, device=self.count.device) >= self.count[:, None]
            return values[0].masked_fill(missing, 0)
        found = values[0].new_zeros(self.n, self.d + 1, dtype=torch.promote_types(values[0].dtype, torch.float))
        number, waiting = torch.zeros_like(found), list(self.ids)
        for v in values:
            ids = self._fitting(v, waiting)
            index = (ids.expand(self.n, *ids.shape[1:]) % (self.d + 1)).flatten(1)  # −1 is the last
            of_element = v.reshape(*v.shape[: ids.dim()], -1)
            of_element = (of_element.mean(-1) if mean else of_element.sum(-1)).flatten(1).to(found)
            found.scatter_add_(1, index, of_element)
            number.scatter_add_(1, index, torch.ones_like(of_element))
        found = found / number.clamp(min=1) if mean else found
        return found[:, : self.d].to(values[0].dtype)

    def _fitting(self, value: Tensor, waiting: list[Tensor]) -> Tensor:
        """Take the numbers that fit attributions from those that wait."""
        for k, ids in enumerate(waiting):
            if value.dim() >= ids.dim() and value.shape[1 : ids.dim()] == ids.shape[1:]:
                return waiting.pop(k)
        sizes = ", ".join(str(tuple(i.shape[1:])) for i in self.ids)
        raise ValueError(
            f"inputs: attributions of shape {tuple(value.shape)} have no number for each element of the sample's tensors, whose "
            f"rows have the sizes {sizes}; choose layer='embeddings', or a method that masks"
        )

    def condense(self, result: Result, *, mean: bool) -> Result:
        """Return what a method found, as one number for each feature."""
        error = result.standard_error
        kept = error is not None and (mean or self.is_game)  # how errors of elements go together is not known
        return replace(
            result,
            attributions=(self.per_feature(result.attributions, mean=mean),),
            details={**result.details, **self.sample.details},
            standard_error=(self.per_feature(error, mean=mean),) if kept and error is not None else None,
        )


class MaskedModel(nn.Module):
    """A model as a function of which features of a sample are there: ``forward(present (M, d), rows (M,))``.

    ``present`` is 1 where a feature is there, and minus the number of its absence where it is not. The layers are the model's,
    by their own names.
    """

    def __init__(self, model: Model, sample: Sample) -> None:
        super().__init__()
        self.model, self.sample, self.training = as_model(model), sample, False

    def forward(self, present: Tensor, rows: Tensor) -> AnyOutput:
        """Return the model's output for what it sees."""
        several = {"absence": -present.clamp(max=0).amin(1)} if self.sample.n_absences > 1 else {}
        seen, arguments = self.sample.masked(present > 0, rows, **several)
        parts, structure = flatten(seen)
        if structure.names is not None:
            return self.model(**dict(zip(structure.names, parts)), **arguments)
        return self.model(*parts, **arguments)

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module of the model."""
        return self.model.get_submodule(target)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Return the modules of the model by name."""
        return (
            self.model.named_modules(memo, prefix, remove_duplicate) if isinstance(self.model, nn.Module) else iter(())
        )


class PackingModel(nn.Module):
    """A model that takes some tensors packed, as a function of tensors with a row for each: see :meth:`Sample.pack`.

    ``forward(..., sample_rows (M,))``: the rows of the sample that these are. The layers are the model's, by their own names.
    """

    def __init__(self, model: nn.Module, sample: Sample) -> None:
        super().__init__()
        self.model, self.sample, self.training = model, sample, False

    def forward(self, sample_rows: Tensor, **given: AnyGiven) -> AnyOutput:
        """Return the model's output."""
        packed = {k: self.sample.pack(k, v, sample_rows) if k in self.sample.packed else v for k, v in given.items()}
        return self.model(**packed)

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module of the model; the outermost one is this."""
        return self.model.get_submodule(target) if target else self

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Return the modules of the model by name; the outermost one is this."""
        yield "", self
        yield from ((name, m) for name, m in self.model.named_modules(memo, prefix, remove_duplicate) if name)

    def get_input_embeddings(self) -> nn.Module:
        """Return the model's table of token ids."""
        model: AnyModel = self.model
        return model.get_input_embeddings()


class ForeignSample(Sample):
    """A sample of a class of its own, which has what the protocol asks for."""

    def __init__(self, sample: AnyGiven) -> None:
        super().__init__(*(getattr(sample, name, None) for name in ("tensors", "feature_mask")))
        self.sample = sample
        for name in ("baselines", "arguments", "names", "target", "n_absences", "axes"):
            setattr(self, name, getattr(sample, name, getattr(Sample, name)))

    def bind(self, model: AnyModel) -> Sample:
        """Return the sample, ready for a model."""
        return ForeignSample(self.sample.bind(model))

    def masked(self, kept: Tensor, rows: Tensor, **absence: Tensor) -> AnyGiven:
        """Return what the model sees."""
        return self.sample.masked(kept, rows, **absence)


class Asked(NamedTuple):
    """What a call about a sample comes down to, as arguments of :func:`torchwhy.engine.prepare.prepare_for`."""

    asker: Asker
    inputs: object
    target: AnyGiven
    baselines: object
    feature_mask: object
    arguments: object
    features: FeaturesOfSample


class AskerAboutSample:
    """Whoever asks, with some of what it asks for replaced."""

    def __init__(self, asker: Asker, **changes: object) -> None:
        self._asker = asker
        vars(self).update({"label": getattr(asker, "label", type(asker).__name__), **changes})

    def __getattr__(self, name: str) -> AnyGiven:
        return getattr(self._asker, name)


def as_sample(given: Given) -> Sample:
    """Return what has the protocol of samples as a sample."""
    return given if isinstance(given, Sample) else ForeignSample(given)


def ask_about(asker: Asker, sample: Given, target: Given, other: object = None) -> Asked:
    """Return what a call about a sample comes down to.

    Args:
        asker: who asks.
        sample: the sample.
        target: as a caller gives it.
        other: the sample that a method which compares two has as its baselines.

    Raises:
        ValueError: features that are not numbered from 0 without gaps, names that do not fit, or no value for what is absent
            where a method needs one.
    """
    ready, asked_target = as_sample(sample).asked(asker.model, target)
    features = count_features(ready)
    if getattr(asker, "compares_inputs", False):
        from torchwhy.engine.compared_samples import ask_about_two

        second = as_sample(other).asked(asker.model, target)[0] if hasattr(other, "masked") else other
        return ask_about_two(asker, features, asked_target, second)
    target = asked_target
    if asker.uses_baselines and not asker.needs_gradient and asker.layer is None:
        return _as_game(asker, replace(features, is_game=True), target)
    return through_tensors(asker, features, target)


def count_features(sample: Sample) -> FeaturesOfSample:
    """Return the features of a sample that is ready, checked and counted."""
    if sample.tensors is None:
        names = list(sample.names or ())
        count = torch.tensor([len(row) for row in ([names] if all(isinstance(n, str) for n in names) else names)])
        if not len(count) or not bool(count.all()):
            raise ValueError("inputs: a sample without tensors needs the names of its features, for each row")
        return FeaturesOfSample(sample, (), count, names_of_rows(sample.names, count.tolist()))
    ids = numbers_of(sample)
    n = len(flatten(sample.tensors)[0][0])
    flat = torch.cat([i.expand(n, *i.shape[1:]).flatten(1) for i in ids], 1)
    count = flat.amax(1) + 1
    for row in range(n):
        present = flat[row].unique()
        present = present[present >= 0]
        if not len(present) or len(present) != int(count[row]):
            raise ValueError(
                f"feature_mask: row {row} of the sample has the features {present.tolist()}; number them from 0 without gaps, "
                "and what is never a feature −1"
            )
    return FeaturesOfSample(sample, ids, count, names_of_rows(sample.names, count.tolist()))


def _as_game(asker: Asker, features: FeaturesOfSample, target: Given) -> Asked:
    """Return the call of a method that masks: its input says which features are there."""
    n, d, device = features.n, features.d, features.count.device
    present = torch.ones(n, d, dtype=torch.long, device=device)
    absent = -torch.arange(features.sample.n_absences, device=device)
    baselines = ResolvedBaseline(absent.view(-1, 1, 1).expand(-1, 1, d))
    mask = features.numbers() if asker.uses_feature_mask else None
    rows = (PerRow(torch.arange(n, device=device)),)
    model = MaskedModel(asker.model, features.sample)
    return Asked(
        AskerAboutSample(asker, model=model, owner=asker.model), present, target, baselines, mask, rows, features
    )


def through_tensors(asker: Asker, features: FeaturesOfSample, target: Given) -> Asked:
    """Return the call of a method that works on the tensors: token ids are explained at their embeddings."""
    sample = features.sample
    if sample.tensors is None or not features.ids:
        raise TypeError(
            f"inputs: {type(asker).__name__} needs tensors, this sample has none; choose a method that masks"
        )
    tensors, structure = flatten(sample.tensors)
    layer, model = asker.layer, asker.model
    arguments = {k: _following_rows(v, features.n) for k, v in (sample.arguments or {}).items()}
    if sample.packed:
        model = PackingModel(model, sample)
        arguments["sample_rows"] = PerRow(torch.arange(features.n, device=tensors[0].device))
    if layer is None and asker.layer_role == "input" and asker.needs_gradient:
        layer = _layers_of_tensors(model, tensors, structure.names)
    baselines = structure.restore(_absent(sample)) if asker.uses_baselines else None
    masks: Given = None
    if asker.uses_feature_mask:
        masks = tuple(i[..., None] if layer is not None else i for i in features.element_numbers())
        each = isinstance(layer, (tuple, list))  # a layer of its own for each tensor
        if not each:
            masks = masks[0] if len(masks) == 1 else structure.restore(masks)
    changed = AskerAboutSample(asker, layer=layer, model=model, owner=asker.model)
    return Asked(changed, sample.tensors, target, baselines, masks, arguments or None, features)


def _following_rows(value: object, n: int) -> object:
    """Return a tensor with n rows as one that follows the rows, anything else as it is."""
    return PerRow(value) if isinstance(value, Tensor) and value.dim() > 0 and len(value) == n else value


def _absent(sample: Sample) -> list[ResolvedBaseline]:
    """Return what stands in the place of each element where its feature is absent; what is no feature stays."""
    tensors, absent = flatten(sample.tensors)[0], sample.absent_tensors()
    fixed = [(i < 0).expand(t.shape) for i, t in zip(numbers_of(sample), tensors)]
    return [ResolvedBaseline(torch.where(f, t, b.expand(t.shape))[None]) for f, t, b in zip(fixed, tensors, absent)]


def _layers_of_tensors(model: AnyModel, tensors: Tensors, names: tuple[str, ...] | None) -> AnyGiven:
    """Return where a gradient by the tensors is taken: ids at their embeddings, others where the model takes them."""
    if all(t.is_floating_point() for t in tensors):
        return None
    if not any(t.is_floating_point() for t in tensors):
        return "embeddings"
    keys: Sequence[int | str] = names or range(len(tensors))
    return [
        Layer(model, input=True, output=key) if t.is_floating_point() else "embeddings" for key, t in zip(keys, tensors)
    ]
