"""The base class of every method: what it is called with, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, overload

from torch import Tensor
from typing_extensions import Unpack

from torchwhy.arguments import Ragged
from torchwhy.baselines import at_layer
from torchwhy.calls import only_by_name, refuse_second, shown_with_target
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.axes import AxesLike
from torchwhy.engine.explained_layers import check_named_layers
from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.prepare import prepare_for
from torchwhy.engine.run.autograd import UNCHANGED, freeze_parameters, isolated
from torchwhy.engine.run.rows import all_finite
from torchwhy.engine.structure import SINGLE, Keywords, Structure, Tensors, flatten
from torchwhy.engine.uneven import may_be_uneven, read_uneven, solve_uneven
from torchwhy.explanation import Explanation, Names
from torchwhy.explanation.of_result import explanation_of
from torchwhy.input_types import (
    AnyResult,
    Baselines,
    ByName,
    Even,
    FeatureMasks,
    GivenLayer,
    Inputs,
    LayerList,
    OneInput,
    Rest,
    Several,
    SomeInputs,
    TargetList,
    Uneven,
)
from torchwhy.problem import Problem
from torchwhy.provenance import gap_of, has_unknown_gap, measure_ends, measure_ends_besides
from torchwhy.result import Result, ScoreEnds, as_result, refuse_not_finite
from torchwhy.samples.sample import Sample
from torchwhy.settings import Count, Settings
from torchwhy.targets import TargetLike


class Attribution(Settings, Generic[GivenLayer]):
    """The base class of the methods: settings in the constructor, data in the call.

    A method is a class of its settings with one function, ``_attribute(problem)``; methods with equal settings are equal.

    Args:
        model: a module, used as it is and left as it was; methods without gradients take any callable, also from
            NumPy arrays to NumPy arrays, or a scikit-learn estimator.
        layer: what the target is explained by: the inputs (None), or what passes a layer, given as a module, its dotted
            name, :class:`torchwhy.Layer`, or a list of these, in which None is the input; ``"auto"`` is the last layer with a
            grid of cells or tokens over the picture on which the target depends, found by running the model on the first row.
        attribute_to_layer_input: explain by what goes into the layer, not by what comes out.
        batch_size: the most rows of one model call; None finds it from the memory that a row takes. It is halved, and
            the work goes on, when memory runs out. It does not change the numbers, beyond rounding.
        precision: run the model under autocast in ``"bf16"`` or ``"fp16"``, all but its linear maps of one vector a row, such
            as a classifier's head, whose rounding would be the score's; sums are kept in float32. Maps of gradients follow
            each rectifier that rounding switches, and change far more than maps of scores.
        progress: show a bar.
        check: try on the first rows whether further arguments with as many rows as the inputs follow them, whether a row's
            score depends on the rows beside it, and whether the model gives a row the same score twice. That takes
            up to a few evaluations, which are not counted, once for a model where the outcome follows from it; it changes no
            number.
    """

    if TYPE_CHECKING:  # what a call returns follows from it
        layer: GivenLayer = None  # type: ignore[assignment]
    else:
        layer: LayerLike | Sequence[LayerLike | None] | None = None
    attribute_to_layer_input: bool = False
    batch_size: Count | None = None
    precision: Literal["bf16", "fp16"] | None = None
    progress: bool = False
    check: bool = True

    # facts about the method, for the tables of methods and for the checks
    multiplies_by_input: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = True
    needs_float_inputs: ClassVar[bool | None] = None  # None: where a gradient is needed
    is_complete: ClassVar[bool] = False
    uses_baselines: ClassVar[bool] = False
    takes_baselines: ClassVar[bool] = False  # means something by them, and does without
    uses_feature_mask: ClassVar[bool] = False
    baselines_are_rows: ClassVar[bool] = False  # a tensor of baselines is K rows to draw from
    rows_are_independent: ClassVar[bool] = True
    layer_role: ClassVar[LayerRole] = "input"  # the model begins there | is read there | the method's own business
    layers_may_depend: ClassVar[bool] = False  # layers with the role "input" may lie behind one another
    reads_gradient: ClassVar[bool] = False  # such layers are left as they are: their gradients are read, in one pass
    explains_inputs: ClassVar[bool] = True  # or layers: attributions are of their elements, a sample's of its features
    gives_one_map: ClassVar[bool] = False  # a single tensor, whatever the form of the inputs
    knows_pairs: ClassVar[bool] = False  # rows depend on the batch, which is told from the pairs of several targets
    searches: ClassVar[bool] = False  # what it asks depends on what it found: several targets take a run each
    is_slope_times_input: ClassVar[bool] = False  # a local coefficient times x - b, which infidelity takes apart
    paper: ClassVar[str] = ""

    def _check_settings(self) -> None:
        super()._check_settings()
        check_named_layers(self)

    # fmt: off
    @overload
    def attribute(self, inputs: Sample, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensor: ...  # type: ignore[overload-overlap]
    @overload
    def attribute(self: Attribution[SomeInputs], inputs: Several, target: TargetLike = ...,  # type: ignore[overload-overlap]
                  **data: Unpack[Rest]) -> Tensor | Tensors: ...
    @overload
    def attribute(self: Attribution[SomeInputs], inputs: ByName, target: TargetLike = ...,  # type: ignore[overload-overlap]
                  **data: Unpack[Rest]) -> Tensor | dict[str, Tensor]: ...
    @overload
    def attribute(self: Attribution[LayerLike], inputs: OneInput, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensor: ...  # type: ignore[overload-overlap]
    @overload
    def attribute(self: Attribution[LayerLike], inputs: Several, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensor: ...  # type: ignore[overload-overlap]
    @overload
    def attribute(self: Attribution[LayerLike], inputs: ByName, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensor: ...  # type: ignore[overload-overlap]
    @overload
    def attribute(self: Attribution[LayerList], inputs: OneInput, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensors: ...  # type: ignore[overload-overlap]
    @overload
    def attribute(self: Attribution[LayerList], inputs: Several, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensors: ...  # type: ignore[overload-overlap]
    @overload
    def attribute(self: Attribution[LayerList], inputs: ByName, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensors: ...  # type: ignore[overload-overlap]
    @overload
    def attribute(self: Attribution[LayerLike | LayerList], inputs: Uneven, target: TargetLike = ...,  # type: ignore[overload-overlap]
                  **data: Unpack[Rest]) -> AnyResult: ...
    @overload
    def attribute(self, inputs: OneInput, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensor: ...
    @overload
    def attribute(self, inputs: Several, target: TargetLike = ..., **data: Unpack[Rest]) -> Tensors: ...
    @overload
    def attribute(self, inputs: ByName, target: TargetLike = ..., **data: Unpack[Rest]) -> dict[str, Tensor]: ...
    @overload
    def attribute(self, inputs: Ragged, target: TargetLike = ..., **data: Unpack[Rest]) -> Ragged: ...
    @overload
    def attribute(self, inputs: list[Tensor], target: TargetLike = ..., **data: Unpack[Rest]) -> Tensors | list[Tensor]: ...
    @overload
    def attribute(self, inputs: Uneven, target: TargetLike = ..., **data: Unpack[Rest]) -> AnyResult: ...
    # fmt: on
    @shown_with_target
    def attribute(
        self,
        inputs: Inputs,
        *second: TargetLike,
        target: TargetLike = None,
        baselines: Baselines = None,
        layer_baselines: Baselines = None,
        feature_mask: FeatureMasks = None,
        additional_forward_args: object = None,
        axes: AxesLike = None,
        **unknown: object,
    ) -> Any:
        """Return the attributions: how much each input element had to do with the target.

        Args:
            inputs: a tensor ``(N, ...)``, a tuple of them (positional arguments of the model), or a dict (keyword
                arguments). Rows are independent. Where they have shapes of their own: :class:`torchwhy.Ragged`, or a list with
                a tensor for each row that the model takes as a list, such as a detector's pictures ``(C, H, W)``.
            target: the scalar that is explained, for each row: an int (a class), one int per row, a tuple (outputs of more
                dimensions, also ``(-1, "predicted")``), a callable that takes the model's whole output of M rows to ``(M,)``, or
                the output and a LongTensor ``(M,)`` of which inputs these are, one of :mod:`torchwhy.targets`, a list with one
                of these per row, :class:`torchwhy.Neuron`, ``"predicted"`` (each row's largest output), or None if the
                model gives one number per row.
            baselines: the absence of a feature: a number, a tensor that broadcasts to the inputs, an object or name of
                :mod:`torchwhy.baselines`; a tuple or dict of them for several inputs. None is zero.
            layer_baselines: the absence of a unit of a layer, instead: short for ``baselines=tw.AtLayer(...)``.
            feature_mask: integers that broadcast to a row, the same in one feature; of a frame also ``{"home": ["city"]}``.
            additional_forward_args: further arguments of the model, a tuple, a dict of keywords or a single one:
                :class:`torchwhy.Shared`, :class:`torchwhy.PerRow`, :class:`torchwhy.Ragged`, or anything else. Tensors with N
                rows follow the rows, if a trial on the first row does not say otherwise; objects that hold tensors are copied.
            axes: what the axes of the inputs are, where their shape does not say it: ``"NTF"`` is a series with its features
                last, ``"NTCHW"`` a video, see :mod:`torchwhy.engine.axes`; a tuple or dict of them for several inputs.

        Returns:
            Tensors of the inputs' form, shape, type and device; of the layer's with ``layer=``. Of a ragged tensor a ragged
            one, of a list of rows a list.

        Raises:
            TypeError, ValueError, LookupError: an argument that makes no sense; the message names it.
            FloatingPointError: the model's output is NaN or infinite.
        """
        if second or unknown:
            plain = len(second) == 1 and target is None and not unknown
            target = second[0] if plain else refuse_second(self, second, target, unknown)
        if layer_baselines is not None:
            baselines = at_layer(baselines, layer_baselines)
        if isinstance(target, str) and target == "each":
            return self.explain(inputs, target).attributions
        result, problem = solve(self, inputs, target, baselines, feature_mask, additional_forward_args, axes=axes)
        given = problem.inputs.structure if problem.inputs.forms else flatten(inputs)[1]
        return (result.form or problem.form or self.result_structure(given)).restore(result.attributions)

    @only_by_name
    def explain(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        baselines: Baselines = None,
        layer_baselines: Baselines = None,
        feature_mask: FeatureMasks = None,
        additional_forward_args: object = None,
        axes: AxesLike = None,
        names: Names = None,
    ) -> Explanation:
        """Return what :meth:`attribute` does, with what it took and how far it can be trusted: see :class:`Explanation`.

        The scores in it take one more evaluation of each row, and of each baseline, where the completeness gap has not
        taken them already; these are not counted in ``evaluations``.

        Args:
            inputs, target, baselines, layer_baselines, feature_mask, additional_forward_args, axes: as for :meth:`attribute`.
            names: what the features are called: a string for each feature of ``feature_mask``, or for each element of a
                row; or a list of such for each row.

        Raises:
            ValueError: another number of names than of features; and what :meth:`attribute` raises.
        """
        if isinstance(target, str) and target == "each" and isinstance(inputs, Sample):
            from torchwhy.samples.each import explain_each_token

            return explain_each_token(self, inputs)
        if layer_baselines is not None:
            baselines = at_layer(baselines, layer_baselines)
        data, begun = (baselines, feature_mask, additional_forward_args), time.perf_counter()
        result, problem = solve(self, inputs, target, *data, measure_gap=True, axes=axes)
        return explanation_of(self, result, problem, inputs, baselines, names, time.perf_counter() - begun)

    # fmt: off
    @overload
    def attribute_each(self: Attribution[SomeInputs], inputs: Several | ByName, targets: TargetList,  # type: ignore[overload-overlap]
                       **data: Unpack[Rest]) -> list[AnyResult]: ...
    @overload
    def attribute_each(self: Attribution[LayerLike], inputs: Even, targets: TargetList,  # type: ignore[overload-overlap]
                       **data: Unpack[Rest]) -> list[Tensor]: ...
    @overload
    def attribute_each(self: Attribution[LayerList], inputs: Even, targets: TargetList,  # type: ignore[overload-overlap]
                       **data: Unpack[Rest]) -> list[Tensors]: ...
    @overload
    def attribute_each(self, inputs: OneInput, targets: TargetList, **data: Unpack[Rest]) -> list[Tensor]: ...
    @overload
    def attribute_each(self, inputs: Several, targets: TargetList, **data: Unpack[Rest]) -> list[Tensors]: ...
    @overload
    def attribute_each(self, inputs: ByName, targets: TargetList, **data: Unpack[Rest]) -> list[dict[str, Tensor]]: ...
    @overload
    def attribute_each(self, inputs: Uneven, targets: TargetList, **data: Unpack[Rest]) -> list[AnyResult]: ...
    # fmt: on
    @only_by_name
    def attribute_each(
        self,
        inputs: Inputs,
        targets: TargetList,
        *,
        baselines: Baselines = None,
        layer_baselines: Baselines = None,
        feature_mask: FeatureMasks = None,
        additional_forward_args: object = None,
        axes: AxesLike = None,
    ) -> object:
        """Return what :meth:`attribute` gives for each of several targets, from one run.

        The model is asked once for what the targets share: gradients take one pass forward and one back for each target, methods
        that mask or sample evaluate what a single target takes. With ``tolerance``, targets stop together, as rows do. Methods
        that search step by step, whose next question depends on the last answer, take a run for each target, and so do targets
        inside the model (:class:`torchwhy.Neuron`).

        Args:
            inputs, baselines, layer_baselines, feature_mask, additional_forward_args: as for :meth:`attribute`.
            targets: T targets, each in any of the forms of :meth:`attribute`; ``"all"`` is every class of an output
                ``(N, classes)``.

        Returns:
            T attributions, each as :meth:`attribute` gives it.

        Raises:
            ValueError: no target.
        """
        from torchwhy.several_targets import attribute_each

        if layer_baselines is not None:
            baselines = at_layer(baselines, layer_baselines)
        data = (baselines, feature_mask, additional_forward_args, axes)
        return attribute_each(self, inputs, targets, data)

    @only_by_name
    def explain_each(
        self,
        inputs: Inputs,
        targets: TargetList,
        *,
        baselines: Baselines = None,
        layer_baselines: Baselines = None,
        feature_mask: FeatureMasks = None,
        additional_forward_args: object = None,
        axes: AxesLike = None,
        names: Names = None,
    ) -> list[Explanation]:
        """Return what :meth:`explain` does for each of several targets, from one run as :meth:`attribute_each` makes it.

        Arguments and errors as there. ``evaluations``, ``seconds`` and counts of operations are those of the whole run.
        """
        from torchwhy.several_targets import explain_each

        if layer_baselines is not None:
            baselines = at_layer(baselines, layer_baselines)
        data = (baselines, feature_mask, additional_forward_args, axes)
        return explain_each(self, inputs, targets, data, names)

    def _attribute(self, problem: Problem) -> Tensors | Result:
        """Return attributions for ``problem.x``, tensor by tensor, or a :class:`Result` with what was measured: the method."""
        raise NotImplementedError(f"{type(self).__name__}: a method needs a function _attribute(self, problem)")

    @property
    def gives_whole_features(self) -> bool:
        """Whether every element has the whole value of its feature, not a share of it."""
        return self.uses_feature_mask

    def result_structure(self, inputs: Structure) -> Structure:
        """Return how the attributions are put together: as the inputs, or as ``layer=``."""
        if self.gives_one_map or inputs.kind == "sample":
            return SINGLE
        return inputs if self.layer is None else flatten(self.layer)[1]


def solve(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike,
    baselines: Baselines = None,
    feature_mask: FeatureMasks = None,
    additional_forward_args: object = None,
    *,
    measure_gap: bool = False,
    parent: Problem | None = None,
    axes: AxesLike = None,
) -> tuple[Result, Problem]:
    """Return what a method finds, and the problem that it solved.

    Args:
        method, inputs, target, baselines, feature_mask, additional_forward_args, axes: see :meth:`Attribution.attribute`.
        measure_gap: also measure the scores at the inputs and the baselines, and with them the completeness gap of methods
            that are complete.
        parent: the problem of which this is a part, see :func:`prepare`.
    """
    if not isinstance(inputs, Tensor) and may_be_uneven(inputs):
        uneven = read_uneven(method.model, inputs, additional_forward_args)
        if uneven is not None:
            how: Keywords = {"measure_gap": measure_gap, "parent": parent, "axes": axes}
            return solve_uneven(solve, method, uneven, target, baselines, feature_mask, additional_forward_args, **how)
    with isolated(method.model):
        problem = prepare_for(method, inputs, target, baselines, feature_mask, additional_forward_args, parent, axes)
        problem = problem.with_gap(is_part=parent is not None) if measure_gap else problem
        is_held = problem.model is method.model
        with UNCHANGED if is_held else freeze_parameters(problem.model):  # a function's layers are known by now
            return finish_result(method, problem, method._attribute(problem), measure_gap=measure_gap), problem


def finish_result(
    method: Attribution, problem: Problem, found: Tensors | Result, *, measure_gap: bool, ends: ScoreEnds | None = None
) -> Result:
    """Return what a method found, checked, in the types of what it explains, with the scores at both ends where asked for.

    ``ends`` are these scores, where they are known already.

    Raises:
        FloatingPointError: attributions or scores that are NaN or infinite; and what :func:`as_result` raises.
    """
    result = Result(tuple(found)) if isinstance(found, (tuple, list)) else found
    given, rows = getattr(result, "attributions", ()), problem.inputs.tensors[0].shape[:1]
    is_plain = method.layer is None and method.layer_role == "input" and not method.gives_one_map
    least = len(problem.x) if is_plain else 1
    if isinstance(given, Tensor) or {getattr(v, "shape", ())[:1] for v in given} != {rows} or len(given) < least:
        result = as_result(type(method).__name__, result, rows[0], least)
    gap, values = result.completeness_gap, result.attributions
    if measure_gap and ends is None:
        begin = problem if result.baselines is None else problem.replace(baselines=result.baselines)
        if has_unknown_gap(method, result):
            ends = measure_ends(begin)
        elif problem.coalitions is not None:
            ends = measure_ends_besides(begin, [begin.target])[0]
    if ends is not None and has_unknown_gap(method, result):
        gap = gap_of(ends, values)
    if problem.tally.not_finite is not False:
        problem.tally.check_finite()
    if not all(map(all_finite, values)):
        refuse_not_finite(type(method).__name__)
    like = problem.x if len(problem.x) == len(values) else problem.x[:1] * len(values)
    if any(v.dtype is not x.dtype and x.is_floating_point() for v, x in zip(values, like)):
        values = tuple(v.to(x.dtype) if x.is_floating_point() else v for v, x in zip(values, like))
    if measure_gap or values is not result.attributions:
        result = replace(result, attributions=values, completeness_gap=gap, ends=ends)
    if problem.sample is not None and method.explains_inputs:
        result = problem.sample.condense(result, mean=method.uses_feature_mask)
    return result
