"""Metrics written outside the package: what they are called with, and how they stand in a table."""

import copy
import functools
import inspect
import io
import math
import pickle
import pydoc
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from nets import inputs, make

import torchwhy as tw
from torchwhy import metrics as M
from torchwhy.metrics.definition import ASKED


@M.metric(higher_is_better=False, range=(0, 1))
def share_outside(attributions, mask):
    """Return the share of the absolute attributions off the mask."""
    size = attributions.abs().sum(1)
    return (size * ~mask).sum((1, 2)) / size.sum((1, 2))


@M.metric
def total(attributions):
    return attributions.flatten(1).sum(1)


def scene():
    return make("conv"), inputs("conv"), torch.arange(64).view(1, 8, 8).expand(3, 8, 8) < 20


def test_a_metric_in_eight_lines_stands_in_a_table():
    lines = inspect.getsource(share_outside.function).strip().splitlines()
    assert len(lines) <= 8
    net, x, mask = scene()
    table = tw.compare(net, x, 1, [tw.Saliency(net)], [share_outside, total, "relevance_mass"], mask=mask)
    a = tw.Saliency(net).attribute(x, 1).sum(1)
    torch.testing.assert_close(table.values["share_outside"]["Saliency"], 1 - (a * mask).sum((1, 2)) / a.sum((1, 2)))
    torch.testing.assert_close(table.values["total"]["Saliency"], a.sum((1, 2)))
    assert table.better == {"share_outside": False, "total": None, "relevance_mass": True}
    head = str(table).splitlines()[0]
    assert head.split()[:6] == ["method", "share_outside", "↓", "total", "relevance_mass", "↑"]


def test_facts_have_sensible_defaults():
    assert share_outside.higher_is_better is False
    assert share_outside.range == (0, 1)
    assert (total.higher_is_better, total.range, total.paper) == (None, (-math.inf, math.inf), "")
    assert (share_outside.needs, total.needs) == ("mask", "maps")


def test_it_is_given_what_its_parameters_name():
    net, x, mask = scene()
    seen = {}

    def note(**given):
        seen.update(given)
        return torch.zeros(3)

    @M.metric
    def everything(method, target, mask, inputs, model, attributions, additional_forward_args=(), other=5):
        return note(**locals())

    method = tw.Saliency(net)
    tw.compare(net, x, [0, 1, 2], {"a": method}, [functools.partial(everything, other=6)], mask=mask)
    assert seen["model"] is net
    assert seen["method"] is method
    assert seen["inputs"] is x
    assert seen["mask"] is mask
    assert seen["target"] == [0, 1, 2]
    assert seen["additional_forward_args"] == ()  # its own default, where nothing was given
    assert seen["other"] == 6
    assert torch.equal(seen["attributions"], method.attribute(x, [0, 1, 2]).sum(1, keepdim=True))


def test_options_reach_one_that_takes_any():
    net, x, _ = scene()
    segments = torch.arange(64).view(1, 8, 8) // 8

    @M.metric(higher_is_better=False, sum_channels=False)
    def area(model, inputs, attributions, target, **options):
        return M.deletion(model, inputs, attributions, target, steps=4, **options).auc

    data = {"baselines": 0.5, "feature_mask": segments}
    table = tw.compare(net, x, 1, [tw.FeatureAblation(net)], [area, functools.partial(M.deletion, steps=4)], **data)
    torch.testing.assert_close(table.values["area"], table.values["deletion"])


def test_attributions_of_channels_where_they_are_asked_for():
    net, x, _ = scene()

    @M.metric(sum_channels=False)
    def channels(attributions):
        return torch.full((len(attributions),), float(attributions.shape[1]))

    @M.metric
    def summed(attributions):
        return torch.full((len(attributions),), float(attributions.shape[1]))

    table = tw.compare(net, x, 1, [tw.Saliency(net)], [channels, summed])
    assert table.values["channels"]["Saliency"].tolist() == [3, 3, 3]
    assert table.values["summed"]["Saliency"].tolist() == [1, 1, 1]


def test_one_that_explains_again():
    net, x, _ = scene()

    @M.metric
    def change(method, inputs, target):
        return (method.attribute(inputs + 1, target) - method.attribute(inputs, target)).flatten(1).norm(dim=1)

    method = tw.Saliency(net)
    table = tw.compare(net, x, 1, {"a": method, "b": x}, [change])
    torch.testing.assert_close(table.values["change"]["a"], change(method, x, 1))
    assert table.values["change"]["b"].isnan().all()


def test_shares_and_settings_that_flip_the_direction():
    net, x, _ = scene()

    @M.metric(higher_is_better=True, is_binary=True, flipped_by=("above", False))
    def positive(attributions, above=True):
        return ((attributions.flatten(1).sum(1) > 0) == above).double()

    table = tw.compare(net, x, 1, [tw.Saliency(net)], {"a": positive, "b": functools.partial(positive, above=False)})
    assert table.better == {"a": True, "b": False}
    assert "[" in str(table)  # the interval of a share
    assert positive.higher_is_better_with({"above": True}) is True


def test_it_stays_a_function():
    assert share_outside.__name__ == "share_outside"
    assert share_outside.__module__ == __name__
    assert list(inspect.signature(share_outside).parameters) == ["attributions", "mask"]
    assert pickle.loads(pickle.dumps(share_outside)) is share_outside
    assert copy.deepcopy(M.deletion) is M.deletion
    assert repr(M.deletion) == "<metric deletion>"
    assert M.deletion is not M.insertion


@pytest.mark.parametrize("name", [n for n in M.__all__ if isinstance(getattr(M, n), M.Metric)])
def test_help_shows_the_signature_and_the_docstring(name):
    text = pydoc.plain(pydoc.render_doc(getattr(M, name)))
    assert f"{name}(" in text
    assert inspect.getdoc(getattr(M, name)).splitlines()[0] in text
    out = io.StringIO()
    with redirect_stdout(out):
        help(getattr(M, name))
    assert f"\n{name}(" in out.getvalue()


def test_the_old_name_warns_and_works():
    net, x, _ = scene()
    with pytest.warns(DeprecationWarning, match="now called comprehensiveness"):
        assert M.necessity is M.comprehensiveness
    with pytest.warns(DeprecationWarning, match="comprehensiveness"):
        table = tw.compare(net, x, 1, [tw.Saliency(net)], ["necessity"])
    assert table.metrics == ["necessity"]
    with pytest.raises(AttributeError, match="no attribute 'necessary'"):
        M.necessary  # noqa: B018


def wrong_shape():
    return M.metric(lambda attributions: attributions.sum())


@pytest.mark.parametrize(
    "metrics,error,match",
    [
        ([lambda attributions: 0], TypeError, r"is no metric.*@torchwhy\.metrics\.metric"),
        ({"x": M.metric(lambda attributions, weight: 0)}, TypeError, "'x' asks for weight.*functools.partial"),
        ({"x": wrong_shape()}, ValueError, r"'x' gave shape \(\); expected one number for each of 3 rows"),
        ({"x": functools.partial(total, 3)}, TypeError, "'x' has positional arguments"),
        ([share_outside], ValueError, "mask: share_outside"),
    ],
)
def test_refusals_name_the_metric(metrics, error, match):
    net, x, _ = scene()
    with pytest.raises(error, match=match):
        tw.compare(net, x, 1, [tw.Saliency(net)], metrics)


def test_a_fact_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="higher"):
        M.metric(higher=True)
    with pytest.raises(TypeError, match="expected a function, got int"):
        M.metric(3)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"range": (1, 0)}, r"range=\(1, 0\)"),
        ({"range": (0, 0)}, r"range=\(0, 0\)"),
        ({"range": (0, math.nan)}, r"range=\(0, nan\)"),
        ({"range": (0, "1")}, r"range=\(0, '1'\)"),
        ({"range": 1}, "range=1: expected"),
        ({"paper": 1706.07979}, r"paper=1706\.07979: expected"),
        ({"higher_is_better": "no"}, "higher_is_better='no': expected True or False or None"),
        ({"higher_is_better": 1}, "higher_is_better=1"),
        ({"is_binary": "yes"}, "is_binary='yes'"),
        ({"sum_channels": None}, "sum_channels=None"),
        ({"uses_baselines": 0}, "uses_baselines=0"),
    ],
)
def test_facts_that_are_none_are_refused(facts, message):
    with pytest.raises(ValueError, match=message):
        tw.metrics.metric(**facts)(lambda attributions: attributions.flatten(1).sum(1))


def test_a_range_may_have_no_end():
    assert tw.metrics.metric(range=(0, math.inf))(lambda attributions: attributions).range == (0, math.inf)


def test_the_page_names_every_parameter_that_is_asked_for():
    page = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
    said = page.partition("read from the names of its parameters:")[2].partition("```")[0]
    assert set(re.findall(r"`(\w+)`", said)) == set(ASKED)
