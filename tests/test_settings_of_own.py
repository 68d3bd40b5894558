"""Methods of a user's own: whatever their annotations and constructors are, they can be made, and what can be checked is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
import torch
from torch import Tensor, nn

import torchwhy as tw
from torchwhy.result import Result

if TYPE_CHECKING:
    from somewhere import Somebody

NET = nn.Linear(3, 2)


class Typed(tw.Saliency):
    """Settings whose annotations mean nothing at run time, beside one that does."""

    who: Somebody | None = None
    wrong: "what it is, in words" = None  # noqa: F722
    absent: torch.NoSuchThing = None
    n_times: int = 2


def test_an_annotation_for_type_checkers_only_leaves_its_setting_unchecked():
    x = torch.ones(1, 3)
    assert torch.equal(Typed(NET, who="anybody").attribute(x, 1), tw.Saliency(NET).attribute(x, 1))
    assert Typed(NET, who="anybody", wrong=3, absent=4).settings() == {"who": "anybody", "wrong": 3, "absent": 4}
    with pytest.raises(ValueError, match=r"n_times=1\.5: expected an int"):
        Typed(NET, n_times=1.5)
    with pytest.raises(ValueError, match="signed='no'"):
        Typed(NET, signed="no")


def test_an_annotation_that_is_local_to_a_function_leaves_its_setting_unchecked():
    class Local:
        pass

    class Mine(tw.Saliency):
        helper: Local | None = None
        helpers: Sequence[Local] = ()

    assert Mine(NET, helper=Local(), helpers=[Local()]).attribute(torch.ones(1, 3), 1).shape == (1, 3)
    with pytest.raises(TypeError, match="no setting 'helpr'"):
        Mine(NET, helpr=Local())


def test_annotations_with_words_of_their_own_check_what_they_annotate():
    class Mine(tw.Saliency):
        share: Annotated[float, "of the rows"] = 0.5
        mask: Annotated[Tensor | None, "(N, D)"] = None
        names: list[Literal["a", "b"]] = ()

    assert Mine(NET, share=0.1, mask=torch.ones(2), names=["a"]).names == ["a"]
    for name, value in (("share", "much"), ("share", math.nan), ("names", ["c"]), ("names", "ab")):
        with pytest.raises(ValueError, match=f"{name}="):
            Mine(NET, **{name: value})


def test_a_number_that_is_infinite_by_default_may_be_so():
    class Mine(tw.Saliency):
        at_most: float = math.inf
        of_each: float | Tensor = math.inf

    assert torch.equal(Mine(NET, of_each=torch.ones(2)).of_each, torch.ones(2))
    assert Mine(NET).at_most == Mine(NET, at_most=float("inf")).at_most == math.inf
    with pytest.raises(ValueError, match="at_most=nan"):
        Mine(NET, at_most=math.nan)


class Built(tw.Saliency):
    """A method that is made by a constructor of its own."""

    def __init__(self, model, k, *, times=1):
        super().__init__(model)
        self.k, self.times = k, times

    def _attribute(self, problem):
        return tuple(self.k * self.times * a for a in super()._attribute(problem))


def test_a_constructor_of_its_own_takes_its_arguments():
    x = torch.ones(2, 3)
    plain = tw.Saliency(NET).attribute(x, 1)
    for method in (Built(NET, 3), Built(NET, k=1, times=3)):
        assert torch.equal(method.attribute(x, 1), 3 * plain)
    assert isinstance(tw.SmoothGrad(NET, of=Built(NET, 2), generator=0).attribute(x, 1), Tensor)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'k'"):
        Built(NET)
    with pytest.raises(ValueError, match="signed='no'"):
        Built(NET, 2).signed = "no"


class Counts(tw.Saliency):
    """A method that notes something as its settings are checked; one setting makes no difference, one is none."""

    seen: object = field(default=None, compare=False)
    found: float = field(default=0.0, init=False)

    def _check_settings(self):
        super()._check_settings()
        self.n_looks = getattr(self, "n_looks", 0) + 1


def test_settings_are_checked_together_when_one_is_assigned_and_nothing_else():
    method = Counts(NET)
    method.signed = True
    method.other = 3
    assert method.n_looks == 2


def test_what_is_left_out_of_comparisons_makes_no_difference():
    assert Counts(NET, seen=1) == Counts(NET, seen=2)
    assert Counts(NET, seen=1, signed=True) != Counts(NET, seen=1)


def test_what_a_method_finds_is_no_setting_and_not_checked():
    method = Counts(NET)
    method.found = None
    assert method.found is None
    method.found = math.nan


class Alike(tw.Saliency):
    """Settings with names that are much like one another."""

    steps_a: int = 1
    steps_b: int = 1
    steps_c: int = 1
    steps_d: int = 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("steps_e", r"the nearest are steps_\w, steps_\w, steps_\w$"),
        ("xyz", "there are .*model, .*signed, steps_a, .*"),
    ],
)
def test_three_settings_at_most_are_proposed_or_all_are_named(name, said):
    with pytest.raises(TypeError, match=f"Alike has no setting '{name}'; {said}"):
        Alike(NET, **{name: 2})


def returning(found):
    """Return a class of methods whose ``_attribute`` returns what a function makes of the tensors that are explained."""

    class Mine(tw.Attribution):
        def _attribute(self, problem):
            return found(problem.x)

    return Mine


class TwoInputs(nn.Module):
    def forward(self, a, b):
        return a.sum((1, 2, 3)) + b.sum(1)


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (lambda x: x[0], TypeError, r"Mine\._attribute returned a tensor: expected a tuple .*\(attributions,\)"),
        (lambda x: None, TypeError, r"Mine\._attribute returned NoneType"),
        (lambda x: {"x": x[0]}, TypeError, r"Mine\._attribute returned dict"),
        (lambda x: (), TypeError, r"Mine\._attribute returned tuple"),
        (lambda x: (None,), TypeError, r"Mine\._attribute returned tuple"),
        (lambda x: Result(x[0]), TypeError, r"Mine\._attribute returned a tensor"),
        (lambda x: (x[0][:1],), ValueError, r"shape \(1, 3, 8, 8\): expected one for each row, \([48], \.\.\.\)"),
        (
            lambda x: Result((x[0][:3],)),
            ValueError,
            r"shape \(3, 3, 8, 8\): expected one for each row, \([48], \.\.\.\)",
        ),
        (lambda x: (x[0].sum(),), ValueError, r"shape \(\): expected one for each row"),
    ],
)
@pytest.mark.parametrize("ask", ["attribute", "explain", "attribute_each"])
def test_what_is_no_attributions_is_refused(found, error, message, ask):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    method, x = returning(found)(net), torch.randn(4, 3, 8, 8)
    with pytest.raises(error, match=message):
        getattr(method, ask)(x, [0, 1] if ask == "attribute_each" else 0)


def test_a_tensor_for_each_input_is_expected():
    x = torch.randn(4, 3, 8, 8), torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"Mine\._attribute returned 1 tensors: expected 2, one for each input"):
        returning(lambda x: x[:1])(TwoInputs()).attribute(x)
    found = returning(lambda x: [v * 2 for v in x])(TwoInputs()).attribute(x)
    assert all(torch.equal(f, 2 * v) for f, v in zip(found, x))


def test_a_method_without_attribute_says_so():
    class Empty(tw.Attribution):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty: a method needs a function _attribute\(self, problem\)"):
        Empty(NET).attribute(torch.ones(2, 3), 0)
