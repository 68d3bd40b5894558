"""Settings of metrics that make no sense are refused where a metric is called, before anything runs; the message names them."""

import inspect
import math
import re
from typing import TypedDict, get_type_hints

import numpy as np
import pytest
import torch
from bad_values import BAD_VALUES
from metric_cases import METRIC_CASES, Scene, each_metric
from typing_extensions import Unpack

import torchwhy as tw
from torchwhy import metrics as M
from torchwhy.settings import Bounds, NotNegative

PUBLIC = {name: found for name in M.__all__ if isinstance(found := getattr(M, name), M.Metric)}
CASES = {case.metric.name: case for case in reversed(METRIC_CASES)}
DATA = (
    "baselines",
    "feature_mask",
    "additional_forward_args",
    "axes",
)  # which say what is asked, not how it is measured


BAD = BAD_VALUES | {
    "word": "false",
    "None": None,
    "empty list": [],
    "list of NaN": [0.1, math.nan],
    "list of bools": [True],
}

# setting, value: what it means
ACCEPTED = {
    ("generator", "None"): "other draws each time",
    ("generator", "negative int"): "a seed is any int",
    ("batch_size", "None"): "found from what a row costs",
    ("subset_size", "None"): "a tenth of the features",
    ("sizes", "None"): "up to ten sizes",
    ("perturb", "None"): "Gaussian noise",
    ("layers", "None"): "the network's children",
    ("shift", "negative int"): "a shift to the other side",
    ("shift", "negative"): "a shift to the other side",
    **{
        (name, "True"): "a flag"
        for name in ("absolute", "multiplied_by_inputs", "normalize", "softmax", "whole_features")
    },
}
LOOKED_UP = {("layers", "word"): (LookupError, "layers: the model has no layer 'false'")}


def settings_of(metric):
    """The names of what a metric takes by keyword, data left out."""
    found = []
    for name, parameter in metric.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found += get_type_hints(M.Data if metric.needs == "method" else M.Options)
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found.append(name)
    return [name for name in found if name not in DATA]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_setting_is_refused_at_the_call_where_it_makes_no_sense(name):
    scene, case, wrong = Scene.make(), CASES[name], []
    for setting in settings_of(PUBLIC[name]):
        for label, value in BAD.items():
            if (setting, label) in ACCEPTED:
                continue
            errors, start = LOOKED_UP.get((setting, label), ((TypeError, ValueError), rf"{setting}\b.*"))
            try:
                case.measure(scene, **{setting: value})
            except errors as error:
                if not re.match(start, str(error)):
                    wrong.append(f"{setting}={value!r}: its error does not begin with its name: {error}")
            except Exception as error:
                wrong.append(f"{setting}={value!r}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{setting}={value!r} is accepted")
    assert not wrong, "\n".join(wrong)


def test_all_public_metrics_have_settings_that_are_tried():
    assert set(CASES) == set(PUBLIC)
    tried = {setting for metric in PUBLIC.values() for setting in settings_of(metric)}
    assert {setting for setting, _ in ACCEPTED} <= tried
    assert len(tried) > 25


@pytest.mark.parametrize(("setting", "label"), ACCEPTED, ids=lambda part: part)
def test_what_means_something_is_accepted(setting, label):
    name = next(name for name, metric in PUBLIC.items() if setting in settings_of(metric))
    given = {setting: BAD[label]}
    if setting == "whole_features":
        given["feature_mask"] = torch.arange(64).view(1, 8, 8) // 12
    CASES[name].measure(Scene.make(), **given)


def as_numpy(value):
    """Return a number, or a list of numbers, in the types of NumPy."""
    if isinstance(value, (list, tuple)):
        return np.array(value)
    kinds = {int: np.int64, float: np.float64}
    return kinds[type(value)](value) if type(value) in kinds else value


@each_metric
def test_numbers_of_numpy_mean_the_same(case):
    scene = Scene.make()
    other = {name: as_numpy(value) for name, value in case.settings.items()}
    assert torch.equal(case.measure(scene).nan_to_num(7), case.measure(scene, **other).nan_to_num(7))


def test_a_metric_of_ones_own_is_held_to_its_annotations():
    @M.metric
    def above(attributions, *, threshold: float = 0.5, signed: bool = False):
        a = attributions if signed else attributions.abs()
        return (a > threshold).flatten(1).double().mean(1)

    a = torch.tensor([[0.2, 0.8]])
    assert above(a).item() == 0.5
    assert above(a, threshold=0.1).item() == 1
    with pytest.raises(ValueError, match=r"^threshold='0\.1': expected a finite number"):
        above(a, threshold="0.1")
    with pytest.raises(ValueError, match=r"^signed='false': expected True or False"):
        above(a, signed="false")
    with pytest.raises(ValueError, match=r"^threshold=nan"):
        tw.compare(
            torch.nn.Linear(2, 1),
            a,
            None,
            [tw.Saliency(torch.nn.Linear(2, 1))],
            [__import__("functools").partial(above, threshold=math.nan)],
        )


class Shares(TypedDict, total=False):
    """Options of a metric of one's own."""

    share: NotNegative


def test_options_and_settings_without_a_default_are_held_to_theirs():
    @M.metric
    def part(attributions, *, power: float, **options: Unpack[Shares]):
        return attributions.flatten(1).sum(1) ** power * options.get("share", 1)

    a = torch.ones(1, 2)
    assert part(a, power=3, share=2).item() == 16
    with pytest.raises(ValueError, match=r"^power='3': expected"):
        part(a, power="3")
    with pytest.raises(ValueError, match=r"^share=-2: expected a number of at least 0"):
        part(a, power=3, share=-2)


def test_any_annotation_or_none_does_for_a_metric_of_ones_own():
    class Local:
        pass

    @M.metric
    def odd(
        attributions: "Nowhere",  # noqa: F821
        mask: float = None,  # noqa: RUF013
        target: int = 0,
        *,
        bare=3,
        unknown: "Nowhere | None" = None,  # noqa: F821
        text: "free text, as others annotate" = 1,  # noqa: F722
        local: Local = None,
        implicit: float = None,  # noqa: RUF013
        set_of: set[int] = frozenset(),
        number: 5 = 5,
        bounded: Bounds(0, 1) = 0.5,
        tensor: torch.Tensor = None,
        **rest: "Nowhere",  # noqa: F821
    ):
        return attributions.flatten(1).sum(1)

    a = torch.ones(2, 3)
    plain = odd(a)
    for name in (
        "bare",
        "unknown",
        "text",
        "local",
        "implicit",
        "set_of",
        "number",
        "bounded",
        "tensor",
        "more",
        "target",
    ):
        for value in (None, "x", 2.5, [1], a):
            assert torch.equal(odd(a, **{name: value}), plain)
    assert torch.equal(odd(a, a > 0), plain)
