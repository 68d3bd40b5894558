"""One call of a method of Captum, in our words: which method, which layers, which data, and the form of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

import torchwhy as tw
from torchwhy.captum.data import further_arguments, in_tuples, tensors_passed
from torchwhy.engine.prepare import prepare
from torchwhy.engine.run.autograd import isolated
from torchwhy.engine.structure import AnyForm, AnyModel, InForm, Keywords, Output, Tensors, flatten

Answered = tuple[Tensors, Tensor | None]  # attributions, and the convergence delta where it was asked for


@dataclass(frozen=True)
class CaptumCall:
    """A call.

    Args:
        ours: our method.
        model: a module or a function.
        settings: of our method.
        inputs, target: as ours take them.
        data: baselines, feature_mask, additional_forward_args.
        layer: a module, a list of them, or None for the inputs.
        to_input: explain by what goes into the layers.
        together: whether all tensors of the layers are explained in one call.
        delta: whether the convergence delta is wanted.
        per_feature: whether one number for each feature is wanted, not for each element.
        around: makes another method of ours, as NoiseTunnel does.
    """

    ours: type[tw.Attribution]
    model: AnyModel
    inputs: AnyForm
    target: AnyForm = None
    settings: Keywords = field(default_factory=dict)
    data: Keywords = field(default_factory=dict)
    layer: nn.Module | Sequence[nn.Module] | None = None
    to_input: bool = False
    together: bool = True
    delta: bool = False
    per_feature: bool = False
    around: Callable[[tw.Attribution], tw.Attribution] | None = None

    def answer(self) -> AnyForm:
        """Return what Captum's ``attribute`` returns: attributions, and the delta behind them where it was asked for."""
        if self.layer is None:
            values, delta = self._ask(None)
            structure = flatten(self.inputs)[1]
            found = structure.restore(values)
            found = values[0] if self.per_feature else found
            return (found, delta) if self.delta else found
        return self._at_layers([self.layer] if isinstance(self.layer, nn.Module) else list(self.layer))

    def _at_layers(self, layers: Sequence[nn.Module]) -> InForm:
        """Return the answer for layers: a tensor, or a tuple where one passes several; a list of these for a list."""
        passed = self._passed(layers)
        places = [[tw.Layer(m, output=k, input=self.to_input) for k in each] for m, each in zip(layers, passed)]
        if self.together:
            flat = [p for each in places for p in each]
            values, whole = self._ask(flat if len(flat) > 1 else flat[0])
            parts = torch.arange(len(values)).split([len(each) for each in places])
            found = [tuple(values[i] for i in part.tolist()) for part in parts]
            deltas = [whole]
        else:
            asked = [[self._ask(p) for p in each] for each in places]
            found = [tuple(v for values, _ in each for v in values) for each in asked]
            deltas = [each[0][1] for each in asked]
        if self.ours is tw.GradCAM:  # a layer of vectors is one cell
            found = [
                tuple(v.flatten(1) if t.dim() == 2 else v for v, t in zip(values, each.values()))
                for values, each in zip(found, passed)
            ]
        shaped = [v if len(v) > 1 else v[0] for v in found]
        listed = isinstance(self.layer, (list, tuple))
        answer = shaped if listed else shaped[0]
        if not self.delta:
            return answer
        if any(len(each) > 1 for each in places) and not self.together:
            raise NotImplementedError(
                "return_convergence_delta: not for a layer that passes several tensors, each of which is explained by itself"
            )
        return answer, deltas if listed and not self.together else deltas[0]

    def _ask(self, layer: tw.Layer | list[tw.Layer] | None) -> Answered:
        """Return what our method finds, in one call."""
        settings: Keywords = self.settings if layer is None else {**self.settings, "layer": layer}
        method = self.ours(self.model, **settings)
        if self.around is not None:
            method = self.around(method)
        if not self.delta and not self.per_feature:
            return in_tuples(method.attribute(self.inputs, self.target, **self.data)), None
        explained = method.explain(self.inputs, self.target, **self.data)
        values = in_tuples(explained.attributions)
        if self.per_feature:
            values = (torch.stack(explained.features()).to(values[0]),)
        return values, self._delta(explained, values) if self.delta else None

    def _delta(self, explained: tw.Explanation, values: Tensors) -> Tensor:
        """Return Captum's delta: the sum less the change of the score; for LRP the score less the sum."""
        total = sum(v.flatten(1).double().sum(1) for v in values)
        scores = explained.scores
        if scores is None or not isinstance(total, Tensor):
            raise NotImplementedError("return_convergence_delta: the scores were not measured")
        if self.ours is tw.LRP:
            return (scores.to(total) - total).to(values[0].dtype)
        if explained.base_scores is None:
            raise NotImplementedError("return_convergence_delta: the scores at the baselines were not measured")
        return (total - (scores - explained.base_scores).to(total)).to(values[0].dtype)

    def _passed(self, layers: Sequence[nn.Module]) -> list[Keywords]:
        """Return for each layer the tensors that it passes, by key, found by running the model on the first row."""
        passed: dict[nn.Module, Keywords] = {}

        def before(module: nn.Module, args: tuple[object, ...]) -> None:
            passed.setdefault(module, tensors_passed(args[0] if len(args) == 1 else args))

        def after(module: nn.Module, args: tuple[object, ...], output: Output) -> None:
            passed.setdefault(module, tensors_passed(output))

        hooks = [
            m.register_forward_pre_hook(before) if self.to_input else m.register_forward_hook(after) for m in layers
        ]
        extra = self.data.get("additional_forward_args")
        try:
            with isolated(self.model), torch.no_grad():
                prepare(self.model, self.inputs, None, additional_forward_args=extra, check=False).run.first_row()
        finally:
            for hook in hooks:
                hook.remove()
        if missing := [m for m in layers if m not in passed]:
            raise LookupError(f"layer: {type(missing[0]).__name__}(...) did not run in the forward pass")
        return [passed[m] for m in layers]


@dataclass(frozen=True)
class RowsOfBatches:
    """A model whose rows are batches: one number for each of them.

    Args:
        function: gives one number for a batch.
        further: its further arguments.
    """

    function: Callable[..., Output]
    further: tuple[object, ...]

    def __call__(self, *batches: Tensor) -> Tensor:
        """Return the numbers of batches ``(M, N, ...)``."""
        found = [self.function(*[t[i] for t in batches], *self.further) for i in range(len(batches[0]))]
        return torch.stack([torch.as_tensor(v, device=batches[0].device).reshape(()) for v in found])


def ask_without_target(question: CaptumCall) -> AnyForm:
    """Return the answer of a perturbation method without a target, as the model's output asks for it.

    One number for each row is explained as it is; one for the whole batch by what is changed in all its rows at once,
    ``(1, ...)``; several for each row one after the other, ``(N * K, ...)``.
    """
    asked = prepare(question.model, question.inputs, None, check=False,
                    additional_forward_args=question.data.get("additional_forward_args"))  # fmt: skip
    with isolated(question.model), torch.no_grad():
        output = asked.run.outputs(asked.x, asked.rows)
    n, size = asked.n, 1 if isinstance(output, (int, float)) else output.numel()
    if size == n and (n > 1 or not isinstance(output, Tensor) or output.dim()):
        return question.answer()
    if size == 1:
        return _of_the_batch(question)
    index = torch.cartesian_prod(*[torch.arange(k) for k in output.shape[1:]]).reshape(-1, output.dim() - 1)
    answers = [in_tuples(replace(question, target=tuple(i)).answer()) for i in index.tolist()]
    joined = [torch.stack(parts, 1).flatten(0, 1) for parts in zip(*answers)]
    return flatten(question.inputs)[1].restore(joined)


def _of_the_batch(question: CaptumCall) -> AnyForm:
    """Return the answer for one number of the batch: a single row, which is the batch."""
    data = dict(question.data)
    further = further_arguments(data.pop("additional_forward_args", None))
    tensors, structure = flatten(question.inputs)
    for name in ("baselines", "feature_mask"):
        if data.get(name) is not None:
            parts, form = flatten(data[name])
            data[name] = form.restore([p[None] if isinstance(p, Tensor) else p for p in parts])
    if data.get("feature_mask") is None:  # a feature is the same element of every row
        masks, d = [], 0
        for t in tensors:
            masks.append(torch.arange(d, d + t[0].numel(), device=t.device).view(1, 1, *t.shape[1:]))
            d += t[0].numel()
        data["feature_mask"] = structure.restore(masks)
    whole = replace(
        question,
        model=RowsOfBatches(question.model, further),
        inputs=structure.restore([t[None] for t in tensors]),
        data=data,
    )
    found = [a[0, :1] for a in in_tuples(whole.answer())]
    return structure.restore(found)
