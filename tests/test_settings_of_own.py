"""Methods of a user's own: whatever their annotations and constructors are, they can be made, and what can be checked is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
import torch
from torch import Tensor, nn

import torchwhy as tw

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
