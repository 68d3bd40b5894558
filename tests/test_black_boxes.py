"""Models that are no modules: functions of tensors or of arrays, what they return, and which of both they are."""

import numpy as np
import pytest
import torch

import torchwhy as tw

X = np.array([[1.0, 2.0, 6.0], [3.0, 0.0, 1.0]])
W = np.array([1.0, 2.0, 3.0])


def in_place_sort(a):
    a.sort(axis=1)  # NumPy sorts in place, torch does not
    return a[:, 1]


DIFFER = {
    "std": lambda a: a.std(axis=1),
    "var": lambda a: a.var(axis=1),
    "sort": in_place_sort,
    "nonzero": lambda a: np.array([len(np.append(r.nonzero()[:1], 0)) for r in a]),
    "dtype": lambda a: a.sum(axis=1) if a.dtype == np.float64 else 0 * a.sum(axis=1),
}


def effects(f, rows):
    """What leaving out each element changes, by the function as it is called with arrays."""
    left = [[f(r[None].copy())[0] - f(np.where(np.arange(3) == j, 0, r)[None])[0] for j in range(3)] for r in rows]
    return torch.tensor(np.array(left, dtype=float))


@pytest.mark.parametrize("name", DIFFER)
@pytest.mark.parametrize("method", ["FeatureAblation", "FeaturePermutation", "LIME"])
def test_functions_that_mean_something_else_for_tensors_are_refused_or_told(name, method):
    f = DIFFER[name]
    make = getattr(tw, method)
    settings = {} if method == "FeatureAblation" else {"generator": 0}
    x = torch.tensor(X)
    with pytest.raises(ValueError, match=r"different scores.*tw.NumPyModel\(f\) or tw.TorchModel\(f\)"):
        make(f, **settings).attribute(x)
    told = make(tw.NumPyModel(f), **settings).attribute(x)
    if method == "FeatureAblation":
        torch.testing.assert_close(told, effects(f, X), rtol=1e-9, atol=1e-9)
    if name == "std":
        told = make(tw.TorchModel(f), **settings).attribute(x)
        same = make(lambda t: torch.std(t, 1), **settings).attribute(x)
        torch.testing.assert_close(told, same)


@pytest.mark.parametrize("name", ["max", "min"])
def test_a_function_that_gives_scores_for_arrays_alone_is_one_of_arrays(name):
    f = lambda a: getattr(a, name)(axis=1)  # noqa: E731 (of tensors: a pair)
    torch.testing.assert_close(tw.FeatureAblation(f).attribute(torch.tensor(X)), effects(f, X))


def assert_array(a):
    assert isinstance(a, np.ndarray)
    return a @ W


def lookup_array(a):
    return a @ {np.ndarray: W}[type(a)]


@pytest.mark.parametrize(
    "f", [assert_array, lookup_array, lambda a: a.astype(float) @ W], ids=["assert", "key", "method"]
)
def test_functions_that_refuse_tensors_in_any_way_get_arrays(f):
    torch.testing.assert_close(tw.FeatureAblation(f).attribute(torch.tensor(X)), torch.tensor(X * W))


@pytest.mark.parametrize("x", [torch.tensor(X), torch.tensor(X, dtype=torch.float32)], ids=["double", "float"])
def test_functions_of_both_that_agree_are_called_with_tensors(x):
    x = x.repeat(8, 1)
    kinds = []
    f = lambda z: (kinds.append(type(z)), (z**3).sum(1) / 7)[1]  # noqa: E731
    tw.FeatureAblation(f).attribute(x)
    again = len(kinds)
    assert np.ndarray in kinds
    tw.FeatureAblation(f).attribute(x)
    assert set(kinds[again:]) == {torch.Tensor}  # what was found out is remembered
    torch.testing.assert_close(tw.Saliency(f, signed=True).attribute(x), 3 * x**2 / 7)


def test_a_random_function_is_not_taken_for_one_that_differs():
    f = lambda z: z.sum(1) + np.random.default_rng().normal()  # noqa: E731
    assert tw.FeatureAblation(f).attribute(torch.tensor(X)).shape == (2, 3)


def test_when_both_fail_both_errors_are_shown():
    def broken(a):
        return a.astype(np.float32) @ np.ones(5, np.float32)

    with pytest.raises(
        AttributeError, match=r"neither on tensors \(.*astype.*nor on NumPy arrays \(ValueError: .*matmul"
    ):
        tw.KernelSHAP(broken).attribute(torch.tensor(X))

    def own(a):
        raise ValueError("only Tuesdays")

    with pytest.raises(ValueError, match=r"^only Tuesdays$"):
        tw.KernelSHAP(own).attribute(torch.tensor(X))


def test_what_says_which_it_is_for_is_checked():
    for kind in (tw.NumPyModel, tw.TorchModel):
        with pytest.raises(TypeError, match="function: expected a callable, got int"):
            kind(3)
    with pytest.raises(TypeError, match="works on NumPy arrays, which have no gradient"):
        tw.Saliency(tw.NumPyModel(lambda a: a.sum(1))).attribute(torch.tensor(X))
    from sklearn.linear_model import LinearRegression

    with pytest.raises(TypeError, match="works on NumPy arrays, which have no gradient"):
        tw.Saliency(LinearRegression().fit(X, X[:, 0])).attribute(torch.tensor(X))
    found = tw.Saliency(tw.TorchModel(lambda t: (t**2).sum(1)), signed=True).attribute(torch.tensor(X))
    torch.testing.assert_close(found, torch.tensor(2 * X))


def score(a):
    return np.asarray(a) @ W


RETURNED = {
    "list of arrays": lambda a: [np.array([v]) for v in score(a)],
    "list of tuples": lambda a: [(v,) for v in score(a)],
    "list of lists": lambda a: [[v] for v in score(a)],
    "list of tensors": lambda a: [torch.tensor(v) for v in score(a)],
    "tuple of floats": lambda a: tuple(score(a).tolist()),
    "list of numpy floats": lambda a: list(score(a)),
    "dict of one array": lambda a: {"y_hat": score(a)},
    "dict with logits": lambda a: {"logits": score(a), "hidden": np.zeros((len(a), 5))},
    "array of objects": lambda a: score(a).astype(object),
    "reversed array": lambda a: score(a[::-1])[::-1],
}


@pytest.mark.parametrize("name", RETURNED)
@pytest.mark.parametrize("rows", [1, 2])
def test_what_holds_numbers_is_read(name, rows):
    x = torch.tensor(X[:rows])
    target = 0 if name in ("list of arrays", "list of tuples", "list of lists") else None
    torch.testing.assert_close(tw.FeatureAblation(RETURNED[name]).attribute(x, target), x * torch.tensor(W))


def test_data_frames_are_read_by_position():
    pandas = pytest.importorskip("pandas")
    x = torch.tensor(X)
    forms = {
        "frame": (lambda a: pandas.DataFrame(score(a)), 0),
        "classes": (lambda a: pandas.DataFrame({"no": -score(a), "yes": score(a)}), 1),
        "series": (lambda a: pandas.Series(score(a)), None),
        "names": (lambda a: pandas.Series(score(a), index=[f"row {i}" for i in range(len(a))]), None),
        "another order": (lambda a: pandas.Series(score(a), index=list(range(len(a)))[::-1]), None),
        "dict": (lambda a: {"y_hat": pandas.Series(score(a), index=range(5, 5 + len(a)))}, None),
    }
    for name, (f, target) in forms.items():
        found = tw.FeatureAblation(f).attribute(x, target)
        torch.testing.assert_close(found, x * torch.tensor(W), msg=name)


def test_several_arrays_are_several_outputs():
    two = lambda a: (score(a), np.zeros((len(a), 4)))  # noqa: E731
    with pytest.raises(TypeError, match=r"returned a tuple with the tensors \[0, 1\]"):
        tw.FeatureAblation(two).attribute(torch.tensor(X))
    found = tw.FeatureAblation(two).attribute(torch.tensor(X), lambda out: out[0])
    torch.testing.assert_close(found, torch.tensor(X * W))
    with pytest.raises(TypeError, match="it returned no numbers"):
        tw.FeatureAblation(lambda a: ["cat"] * len(a)).attribute(torch.tensor(X))
