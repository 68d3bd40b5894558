"""Labels of a classifier stand for its outputs in every form of a target, not for their numbers."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

import torchwhy as tw

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = (X[:, 0] > -0.3).astype(int) + (X[:, 1] * X[:, 2] > 0.4)
LABELS = {
    "from 1": np.array([1, 2, 3]),
    "turned round": np.array([2, 1, 0]),
    "negative": np.array([-1, 0, 1]),
    "texts": np.array(["no", "yes", "zero"]),
    "floats": np.array([0.0, 1.0, 2.0]),
    "objects": np.array(["no", "yes", "zero"], dtype=object),
    "dates": np.array(["2020-01-01", "2021-01-01", "2022-01-01"], "M8[D]"),
}


def fitted(labels):
    model = RandomForestClassifier(10, random_state=0).fit(X, labels[Y])
    return model, model.predict_proba(X[:2])


def column(model, label):
    return model.classes_.tolist().index(label.item() if hasattr(label, "item") else label)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_label_is_its_output(labels):
    model, p = fitted(labels)
    method = tw.FeatureAblation(model)
    for label in labels:
        k = column(model, label)
        found = method.explain(X[:2], label)
        assert found.scores.tolist() == p[:, k].tolist()
        assert found.target == k
    each = [labels[2], labels[0]]
    own = method.explain(X[:2], each)
    assert own.scores.tolist() == [p[i, column(model, label)] for i, label in enumerate(each)]


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("method", [tw.FeatureAblation, tw.KernelSHAP, tw.FeaturePermutation], ids=lambda m: m.__name__)
def test_several_labels_at_once(labels, method):
    model, p = fitted(labels)
    wanted = [labels[2], labels[1]]
    found = method(model).explain_each(X[:2], wanted)
    for e, label in zip(found, wanted):
        k = column(model, label)
        assert e.scores.tolist() == p[:, k].tolist()
        assert e.target == k
    rows = method(model).explain_each(X[:2], [[labels[0], labels[1]], [labels[1], labels[2]]])
    assert [e.scores[1].item() for e in rows] == [p[1, column(model, label)] for label in (labels[1], labels[2])]
    every = method(model).explain_each(X[:2], "all")
    assert torch.stack([e.scores for e in every], 1).tolist() == p.tolist()
    as_array = method(model).attribute_each(X[:2], np.array(wanted))
    for a, e in zip(as_array, found):
        torch.testing.assert_close(a, e.attributions)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_targets_over_classes_take_labels(labels):
    model, p = fitted(labels)
    if labels.dtype.kind in "iUO":
        a, b = labels[1], labels[0]
        a, b = (a.item(), b.item()) if hasattr(a, "item") else (a, b)
        i, j = column(model, a), column(model, b)
        method = tw.FeatureAblation(model)
        assert method.explain(X[:2], tw.targets.Probability(a)).scores.tolist() == p[:, i].tolist()
        own = method.explain(X[:2], tw.targets.Probability([a, b])).scores
        assert own.tolist() == [p[0, i], p[1, j]]
        assert method.explain(X[:2], tw.targets.Contrast(a, b)).scores.tolist() == (p[:, i] - p[:, j]).tolist()
        mixed = method.explain(X[:2], [tw.targets.Probability(b), tw.targets.Contrast(a, b)]).scores
        assert mixed.tolist() == [p[0, j], p[1, i] - p[1, j]]
    best = tw.FeatureAblation(model).explain(X[:2], tw.targets.Probability()).scores
    assert best.tolist() == p.max(1).tolist()


def test_a_label_that_there_is_not():
    model, _ = fitted(LABELS["from 1"])
    for target in (0, [1, 0], 1.5, "1", tw.targets.Probability(0), tw.targets.Contrast(1, 4)):
        with pytest.raises(ValueError, match=r"target=.*: the model's classes are \[1, 2, 3\]"):
            tw.FeatureAblation(model).attribute(X[:2], target)
    with pytest.raises(ValueError, match=r"target=4: the model's classes are"):
        tw.FeatureAblation(model).attribute_each(X[:2], [1, 4])


def test_true_and_false():
    model = RandomForestClassifier(10, random_state=0).fit(X, Y > 0)
    p = model.predict_proba(X[:2])
    method = tw.FeatureAblation(model)
    for target in (True, np.True_, 1, model.classes_[1]):
        assert method.explain(X[:2], target).scores.tolist() == p[:, 1].tolist()
    assert method.explain(X[:2], [True, False]).scores.tolist() == [p[0, 1], p[1, 0]]
    with pytest.raises(TypeError, match="target=True: expected an int"):
        tw.FeatureAblation(lambda z: z).attribute(X[:2], True)


def test_the_explanation_says_the_label():
    model, _ = fitted(LABELS["texts"])
    e = tw.FeatureAblation(model).explain(X[:1], "yes")
    assert e.classes == ["no", "yes", "zero"]
    assert "class=yes" in repr(e)
    assert e.plot().axes[0].get_title().startswith("FeatureAblation · yes, p ")
    model, _ = fitted(LABELS["from 1"])
    assert "target=0, class=1" in repr(tw.FeatureAblation(model).explain(X[:1], 1))
    plain, _ = fitted(np.array([0, 1, 2]))
    assert tw.FeatureAblation(plain).explain(X[:1], 1).classes is None
