"""The base class of every method: what it is called with, checked once, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from torchwhy.baselines import BaselineLike, ResolvedBaseline, resolve_baseline, same_number
from torchwhy.engine.layers.grid_layout import last_grid_layer
from torchwhy.engine.layers.hooks import LayerLike, ResolvedLayer, record_activations, resolve_layer
from torchwhy.engine.run.batching import Batching
from torchwhy.engine.run.black_box import as_model
from torchwhy.engine.run.device import cpu_default_device
from torchwhy.engine.run.gradients import freeze_parameters
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.engine.run.warn import warn_if_training
from torchwhy.explanation import Explanation
from torchwhy.gradient.paths import baseline_at, sum_per_row
from torchwhy.problem import ModelInputs, Problem, Tensors, check_rows_first
from torchwhy.settings import Settings
from torchwhy.targets import Neuron, Target, TargetLike, logits_per_row

Inputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
PRECISIONS = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(kw_only=True, repr=False)
class Attribution(Settings):
    """The base class of the methods: settings in the constructor, data in the call.

    A method is a dataclass of its settings with one function, ``_attribute(problem)``; two methods with equal settings
    compare equal.

    Args:
        model: a module, used as it is and left as it was; methods without gradients take any callable, also from
            NumPy arrays to NumPy arrays, or a scikit-learn estimator.
        layer: what the target is explained by: the inputs (None), or what passes a layer, given as a module, its dotted
            name, :class:`torchwhy.Layer`, or a list of these; ``"auto"`` is the last layer with a grid of cells or tokens
            over the picture on which the target depends, found by running the model on the first row.
        attribute_to_layer_input: explain by what goes into the layer, not by what comes out.
        batch_size: the most rows of one model call; None finds it from the memory that a row takes. It is halved, and
            the work goes on, when memory runs out. It does not change the numbers, beyond rounding.
        precision: run the model under autocast in ``"bf16"`` or ``"fp16"``, all but its linear maps of one vector a row, such
            as a classifier's head, whose rounding would be the score's; sums are kept in float32. Maps of gradients follow
            each rectifier that rounding switches, and change far more than maps of scores.
        progress: show a bar.
    """

    model: Any = field(kw_only=False)
    layer: LayerLike | Sequence[LayerLike] | None = None
    attribute_to_layer_input: bool = False
    batch_size: int | None = None
    precision: Literal["bf16", "fp16"] | None = None
    progress: bool = False

    # facts about the method, for the tables of methods and for the checks
    multiplies_by_input: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = True
    is_complete: ClassVar[bool] = False
    uses_baselines: ClassVar[bool] = False
    uses_feature_mask: ClassVar[bool] = False
    baselines_are_rows: ClassVar[bool] = False  # a tensor of baselines is K rows to draw from
    rows_are_independent: ClassVar[bool] = True
    layer_role: ClassVar[Literal["cut", "tap", "inner"]] = "cut"  # the model begins there | is read there | of a part
    is_slope_times_input: ClassVar[bool] = False  # a local coefficient times x - b, which infidelity takes apart
    paper: ClassVar[str] = ""

    def attribute(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        baselines: Any = None,
        feature_mask: Any = None,
        additional_forward_args: Any = None,
    ) -> Any:
        """The attributions: how much each input element had to do with the target.

        Args:
            inputs: a tensor ``(N, ...)``, a tuple of them (positional arguments of the model), or a dict (keyword
                arguments). Rows are independent.
            target: the scalar that is explained, for each row: an int (a class), one int per row, a tuple (outputs of more
                dimensions), a callable that takes the model's whole output to ``(N,)``, :class:`torchwhy.Neuron`,
                ``"predicted"`` (each row's largest output), or None if the model gives one number per row.
            baselines: the absence of a feature: a number, a tensor that broadcasts to the inputs, an object or name of
                :mod:`torchwhy.baselines`; a tuple or dict of them for several inputs. None is zero.
            feature_mask: integers that broadcast to a row: elements with the same number are one feature.
            additional_forward_args: further arguments of the model, a tuple, a dict of keywords or a single one; tensors
                with N rows follow the rows.

        Returns:
            Tensors of the inputs' form, shape, type and device; of the layer's with ``layer=``.

        Raises:
            TypeError, ValueError, LookupError: an argument that makes no sense; the message names it.
            FloatingPointError: the model's output is NaN or infinite.
        """
        return self._solve(inputs, target, baselines, feature_mask, additional_forward_args)[0]

    def explain(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        baselines: Any = None,
        feature_mask: Any = None,
        additional_forward_args: Any = None,
    ) -> Explanation:
        """As :meth:`attribute`, with what it took and how far it can be trusted: see :class:`Explanation`."""
        begun = time.perf_counter()
        attributions, problem = self._solve(
            inputs, target, baselines, feature_mask, additional_forward_args, facts=True
        )
        return Explanation(
            attributions=attributions,
            inputs=inputs,
            target=problem.target.given,
            method=type(self).__name__,
            settings=self.settings(),
            evaluations=problem.evaluations,
            seconds=time.perf_counter() - begun,
            **{k: self._form(v, inputs) if isinstance(v, tuple) else v for k, v in problem.facts.items()},
        )

    def _attribute(self, problem: Problem) -> Tensors:
        """The method itself: attributions for ``problem.x``, tensor by tensor."""
        raise NotImplementedError

    # ---- from the caller's arguments to a problem, and back

    def _solve(
        self, inputs: Inputs, target: TargetLike, baselines: Any, feature_mask: Any, extra: Any, *, facts: bool = False,
        within: Batching | None = None,
    ) -> tuple[Any, Problem]:  # fmt: skip
        """The attributions in the caller's form, and the problem that was solved; with ``facts``, what can be said of it."""
        with torch.inference_mode(False), cpu_default_device():
            problem = self._problem(inputs, target, baselines, feature_mask, extra, within)
            with problem.open():
                values = self._attribute(problem)
                adds_up = self.is_complete and getattr(self, "multiply_by_inputs", True)
                if facts and adds_up and "completeness_gap" not in problem.facts:
                    problem.report(completeness_gap=gap_of_attributions(problem, values))
            values = self._checked(problem, values)
        return self._form(values, inputs), problem

    def _checked(self, problem: Problem, values: Tensors) -> Tensors:
        """``values`` in the types of what they explain, none of them NaN or infinite."""
        if bool(torch.stack([~v.isfinite().all() for v in values]).any()):
            raise FloatingPointError(
                f"{type(self).__name__}: the attributions are NaN or infinite; the gradients overflow "
                "or the model divides by zero"
            )
        like = problem.x if len(problem.x) == len(values) else problem.x[:1] * len(values)
        return tuple(v.to(x.dtype) if x.is_floating_point() else v for v, x in zip(values, like))

    def _form(self, values: Tensors, inputs: Inputs) -> Any:
        """``values`` in the form of the inputs, or of ``layer=``."""
        if self.layer is not None:
            return values if isinstance(self.layer, (list, tuple)) else values[0]
        if isinstance(inputs, Mapping):
            return dict(zip(inputs, values))
        return values[0] if isinstance(inputs, Tensor) else values

    def _problem(
        self, inputs: Inputs, target: TargetLike, baselines: Any, feature_mask: Any, extra: Any, within: Any = None
    ) -> Problem:
        """The checked problem; ``within`` is the batching of another, of which it is one call."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: expected 'bf16', 'fp16' or None")
        for given, allowed, name in (
            (baselines, self.uses_baselines, "baselines"),
            (feature_mask, self.uses_feature_mask, "feature_mask"),
        ):
            if given is not None and not allowed:
                raise TypeError(f"{name}: {type(self).__name__} has no use for them; leave them out")
        data = _model_inputs(inputs, extra)
        model = as_model(self.model, gradient=self.needs_gradient)
        self._check_model(model, data)
        generator = make_generator(getattr(self, "generator", None))
        problem = Problem(
            model=model,
            data=data,
            target=Target(),
            x=data.inputs,
            generator=generator,
            precision=PRECISIONS[self.precision],
            batching=Batching(
                self.batch_size,
                data.inputs,
                graph=self.needs_gradient,
                progress=self.progress,
                label=type(self).__name__,
                within=within,
                model=self.model,
                kind=(self.precision, str(self.layer), str(target) if isinstance(target, Neuron) else ""),
            ),
        )
        if self.uses_baselines:
            given = per_input(baselines, inputs, "baselines")
            problem.baselines = same_number(
                [
                    resolve_baseline(b, x, generator, distribution=self.baselines_are_rows)
                    for b, x in zip(given, data.inputs)
                ]
            )
        if feature_mask is not None:
            inside = self.layer is not None and self.layer_role == "cut"
            problem.feature_mask = per_input(feature_mask, self.layer if inside else inputs, "feature_mask")
        with freeze_parameters(model):
            self._resolve(problem, target)
        return problem

    def _resolve(self, problem: Problem, target: TargetLike) -> None:
        """Find the target and the layers in the model, some of which takes running it."""
        if isinstance(target, Neuron):
            problem.neuron = resolve_layer(problem.model, target.layer)
            with torch.no_grad():  # one row, to its end: does the layer run once?
                record_activations(problem.first, [problem.neuron], stop=False)
        if isinstance(target, str):
            target = self._predicted(problem, target)
        problem.target = Target.of(target, problem.n, problem.data.inputs[0].device)
        places = self._places(problem.model, problem)
        if self.layer_role == "tap" and not places:
            raise ValueError(f"{type(self).__name__} explains by a layer: give layer=")
        if self.layer_role == "tap":
            problem.taps = places
        elif places:
            self._cut(problem, places)

    def _places(self, model: Any, problem: Problem | None = None) -> tuple[ResolvedLayer, ...]:
        """The places that ``layer`` names; ``"auto"`` needs the problem."""
        if self.layer is None or self.layer_role == "inner":
            return ()
        if not isinstance(model, nn.Module):
            raise TypeError("layer: the model is a plain callable and has no layers")
        layers: Sequence[Any] = self.layer if isinstance(self.layer, (list, tuple)) else [self.layer]
        if not layers:
            raise ValueError("layer: an empty list; give at least one layer, or None for the inputs")
        return tuple(
            last_grid_layer(problem, input=self.attribute_to_layer_input)
            if problem is not None and isinstance(layer, str) and layer == "auto"
            else resolve_layer(model, layer, input=self.attribute_to_layer_input)
            for layer in layers
        )

    def _check_model(self, model: Any, data: ModelInputs) -> None:
        """Refuse or warn where the numbers could not mean anything."""
        self._check_inputs(model, data)
        if not isinstance(model, nn.Module):
            return
        device = next((p.device for p in model.parameters()), data.inputs[0].device)
        if device != data.inputs[0].device:
            raise ValueError(f"inputs: on {data.inputs[0].device}, but the model is on {device}")
        warn_if_training(model)

    def _check_inputs(self, model: Any, data: ModelInputs) -> None:
        """Refuse inputs that have no gradient where one is needed."""
        if self.needs_gradient and self.layer is None and not all(t.is_floating_point() for t in data.inputs):
            modules = model.named_modules() if isinstance(model, nn.Module) else ()
            tables = [name for name, m in modules if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
            instead = f"explain by the embedding layer, layer={tables[0]!r}" if tables else "pass their embeddings"
            raise TypeError(f"inputs: integers have no gradient; {instead}, or give them as additional_forward_args")

    def _check_apart(self, problem: Problem, places: tuple[ResolvedLayer, ...]) -> None:
        """Refuse layers of which one would take away what passes the other."""
        if len(places) > 1 and (pair := problem.behind(places)):
            raise ValueError(
                f"layer: {pair[1]} lies behind {pair[0]}: what is put there takes away what passes it; explain by "
                "each in its own call"
            )

    def _cut(self, problem: Problem, places: tuple[ResolvedLayer, ...]) -> None:
        """Let the layer's tensors, at the inputs and at the baselines, be what is explained."""
        data = problem.data
        self._check_apart(problem, places)
        problem.x = problem.read(places, data.inputs, problem.rows)
        problem.cut = places
        check_rows_first(places, problem.x, data.n)
        if problem.baselines:
            k, m = len(problem.baselines[0]), max(b.shape[1] for b in problem.baselines)
            m = data.n if data.args or data.kwargs else m
            z = [b.expand(k, m, *b.shape[2:]).flatten(0, 1) for b in problem.baselines]
            at = problem.read(places, z, problem.rows[:m].repeat(k))
            problem.baselines = tuple(t.unflatten(0, (k, m)) for t in at)

    @staticmethod
    def _predicted(problem: Problem, target: str) -> list[int]:
        """The largest output of each row."""
        if target != "predicted":
            raise ValueError(f"target={target!r}: the only word is 'predicted'")

        def answer(a: int, b: int) -> Tensor:
            return logits_per_row(problem.output([t[a:b] for t in problem.x], problem.rows[a:b]), b - a)

        with torch.no_grad():
            out = torch.cat(list(problem.batches(problem.n, answer)))
        problem.evaluations += problem.n
        if out.dim() != 2:
            raise ValueError(f"target='predicted' needs an output (N, classes), this one has shape {tuple(out.shape)}")
        return out.argmax(1).tolist()


def gap_of_attributions(problem: Problem, values: Sequence[Tensor]) -> Tensor:
    """How far the attributions of each row are from adding up to the change of its score, shape ``(N,)``."""
    return (sum_per_row(values) - score_change(problem)).abs()


def score_change(problem: Problem) -> Tensor:
    """The scores at x minus those at the baselines, averaged over these, shape ``(N,)``."""
    k, n = len(problem.baselines[0]), problem.n

    def work(a, b):
        return problem.scores(
            [baseline_at(t, torch.arange(a, b) // n, problem.rows.repeat(k)[a:b]) for t in problem.baselines],
            problem.rows.repeat(k)[a:b],
        )

    at_baselines = torch.cat(list(problem.batches(k * n, work))).view(k, n).mean(0)
    return problem.all_scores(problem.x) - at_baselines


def attribute_at(method: Attribution, problem: Problem, z: Sequence[Tensor], rows: Tensor) -> Tensors:
    """What another method says of ``z`` ``(M, ...)`` in place of the inputs of rows ``(M,)``."""
    if not method.rows_are_independent:
        raise ValueError(f"method: what {type(method).__name__} says of a row depends on the batch; give another one")
    data, take = problem.data, lambda value: problem.data.take(value, rows)
    extra: Any = {k: take(v) for k, v in data.kwargs.items()} or tuple(map(take, data.args)) or None
    form = tuple if data.names is None else lambda values: dict(zip(data.names or (), values))
    options = {}
    if method.uses_baselines and problem.baselines:
        options["baselines"] = form(ResolvedBaseline(b if b.shape[1] == 1 else b[:, rows]) for b in problem.baselines)
    if method.uses_feature_mask and problem.feature_mask is not None:
        own = lambda m, x: isinstance(m, Tensor) and m.dim() == x.dim()  # noqa: E731 (features of each row)
        options["feature_mask"] = form(take(m) if own(m, x) else m for m, x in zip(problem.feature_mask, problem.x))
    found, inner = method._solve(
        form(z), problem.target.take(rows), options.get("baselines"), options.get("feature_mask"), extra, within=problem.batching
    )  # fmt: skip
    problem.evaluations += inner.evaluations
    return tuple(found.values()) if isinstance(found, dict) else found if isinstance(found, tuple) else (found,)


def per_input(value: Any, inputs: Any, name: str) -> tuple:
    """One value for each input tensor (or layer); a single one stands for all."""
    if isinstance(inputs, Mapping):
        if isinstance(value, Mapping):
            unknown = set(value) - set(inputs)
            if unknown:
                raise ValueError(f"{name}: no inputs are called {', '.join(map(repr, sorted(unknown)))}")
            return tuple(value.get(key) for key in inputs)
        return (value,) * len(inputs)
    n = len(inputs) if isinstance(inputs, (tuple, list)) else 1
    if isinstance(value, (tuple, list)):
        if len(value) != n:
            raise ValueError(f"{name}: {len(value)} given for {n} input tensors or layers")
        return tuple(value)
    return (value,) * n


def _model_inputs(inputs: Any, extra: Any) -> ModelInputs:
    """The checked inputs and further arguments."""
    names = tuple(inputs) if isinstance(inputs, Mapping) else None
    tensors = (
        tuple(inputs.values())
        if isinstance(inputs, Mapping)
        else tuple(inputs)
        if isinstance(inputs, (tuple, list))
        else (inputs,)
    )
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise TypeError(
            "inputs: expected a tensor (N, ...), or a tuple or dict of them; got "
            + (", ".join(type(t).__name__ for t in tensors) or "nothing")
        )
    sizes = {len(t) if t.dim() else None for t in tensors}
    if len(sizes) != 1 or None in sizes or 0 in sizes:
        raise ValueError(
            "inputs: every tensor needs the same number of rows, at least one, in its first dimension; got the "
            f"shapes {', '.join(str(tuple(t.shape)) for t in tensors)}"
        )
    for t in tensors:
        if t.is_floating_point() and not bool(t.isfinite().all()):
            raise ValueError("inputs: NaN or infinite values")
    tensors = tuple(t.detach().clone() if t.is_inference() else t.detach() for t in tensors)
    kwargs = dict(extra) if isinstance(extra, Mapping) else {}
    args = (
        ()
        if extra is None or isinstance(extra, Mapping)
        else tuple(extra)
        if isinstance(extra, (tuple, list))
        else (extra,)
    )
    return ModelInputs(tensors, names, args, kwargs)


__all__ = ["Attribution", "BaselineLike", "Inputs", "Seed"]
