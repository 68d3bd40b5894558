"""Classifiers of scikit-learn without probabilities, with several outputs, or that only predict: a score for each label."""

import numpy as np
import pandas
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import torchwhy as tw

GENERATOR = np.random.default_rng(5)
ROWS = GENERATOR.normal(size=(120, 4))
TWO = np.where(ROWS[:, 0] + ROWS[:, 1] > 0, "yes", "no")
THREE = np.digitize(ROWS[:, 0], [-0.5, 0.5])
BOTH = np.stack([(ROWS[:, 0] > 0).astype(int), THREE], 1)
LABELS = np.stack([ROWS[:, 0] > 0, ROWS[:, 2] > 0], 1).astype(int)
FEW = torch.tensor(ROWS[:2])  # as many rows as there are outputs
MARGINS = {
    "LinearSVC": LinearSVC(),
    "SVC": SVC(),
    "RidgeClassifier": RidgeClassifier(),
    "Perceptron": Perceptron(),
    "pipeline": make_pipeline(StandardScaler(), LinearSVC()),
    "search": GridSearchCV(RidgeClassifier(), {"alpha": [0.1, 1.0]}),
}


def ablated(score, i=1):
    """What a score loses without feature i."""
    there = np.arange(4) != i
    return torch.tensor(np.asarray(score(FEW.numpy()) - score(FEW.numpy() * there)))


@pytest.mark.parametrize("model", MARGINS.values(), ids=MARGINS)
def test_a_margin_of_two_classes_is_that_of_the_second_and_the_negative_one_of_the_first(model):
    model = clone(model).fit(ROWS, TWO)
    margin = ablated(model.decision_function)
    for asked in (model, model.decision_function):
        method = tw.FeatureAblation(asked)
        found = {t: method.attribute(FEW, t)[:, 1] for t in ("no", "yes", None, "predicted")}
        torch.testing.assert_close(found["yes"], margin)
        torch.testing.assert_close(found["no"], -margin)
        torch.testing.assert_close(found[None], margin)
        sign = torch.tensor(
            [1.0 if label == "yes" else -1.0 for label in model.predict(FEW.numpy())], dtype=torch.double
        )
        torch.testing.assert_close(found["predicted"], sign * margin)
        each = method.attribute_each(FEW, "all")
        torch.testing.assert_close(torch.stack(each)[:, :, 1], torch.stack([-margin, margin]))
    explained = method.explain(FEW, ["yes", "no"])
    torch.testing.assert_close(explained.attributions[:, 1], margin * torch.tensor([1.0, -1.0]))
    assert explained.classes == ["no", "yes"]
    torch.testing.assert_close(method.attribute(FEW, tw.targets.Contrast("yes", "no"))[:, 1], 2 * margin)


def test_of_a_margin_no_probabilities_are_made():
    model = LinearSVC().fit(ROWS, TWO)
    attributions = torch.ones_like(FEW)
    for target in (tw.targets.Probability("yes"), tw.targets.LogProb("yes"), tw.targets.Entropy()):
        with pytest.raises(ValueError, match="has one margin, of which no probabilities follow; give predict_proba"):
            tw.FeatureAblation(model).attribute(FEW, target)
    with pytest.raises(ValueError, match="softmax=True: decision_function of two classes has one margin"):
        tw.metrics.deletion(model, FEW, attributions, "yes", softmax=True)
    assert tw.metrics.deletion(model, FEW, attributions, "yes").scores.isfinite().all()
    with pytest.raises(ValueError, match="labels: decision_function has margins, and the loss is of probabilities"):
        tw.SAGE(LinearSVC().fit(ROWS, THREE), n_samples=4).measure(torch.tensor(ROWS[:20]), torch.tensor(THREE[:20]))


def test_importance_and_trees_read_the_margin_by_label():
    model, x = LinearSVC().fit(ROWS, TWO), torch.tensor(ROWS)
    found = tw.PermutationImportance(model, generator=0).measure(x, TWO)
    assert found.score == pytest.approx(model.score(ROWS, TWO))
    tree = tw.SurrogateTree(model).fit(x)
    assert "class: yes" in tree.text()
    assert tree.fidelity > 0.9


@pytest.mark.parametrize("model", [LinearSVC(), RidgeClassifier(), Perceptron(), SVC()], ids=lambda m: type(m).__name__)
def test_a_margin_for_each_of_three_classes(model):
    model = model.fit(ROWS, THREE * 10)
    for k in range(3):
        found = tw.FeatureAblation(model).attribute(FEW, k * 10)[:, 1]
        torch.testing.assert_close(found, ablated(lambda a, k=k: model.decision_function(a)[:, k]))


@pytest.mark.parametrize("asked", [lambda m: m, lambda m: m.decision_function, lambda m: make_pipeline(m)])
def test_scores_of_pairs_of_classes_are_refused(asked):
    """Of three classes there are three pairs, which are taken for the classes where nobody looks."""
    model = SVC(decision_function_shape="ovo").fit(ROWS, THREE)
    with pytest.raises(ValueError, match="has a score for each pair of classes, and none for a class; set it to 'ovr'"):
        tw.FeatureAblation(asked(model)).attribute(FEW, 1)
    pairs = tw.FeatureAblation(lambda a: model.decision_function(a)).attribute(FEW, 1)[:, 1]
    torch.testing.assert_close(pairs, ablated(lambda a: model.decision_function(a)[:, 1]))
    two = SVC(decision_function_shape="ovo").fit(ROWS, TWO)
    torch.testing.assert_close(tw.FeatureAblation(two).attribute(FEW, "yes")[:, 1], ablated(two.decision_function))


SEVERAL = {
    "MultiOutputClassifier": MultiOutputClassifier(LogisticRegression()),
    "RandomForestClassifier": RandomForestClassifier(n_estimators=5, random_state=0),
    "KNeighborsClassifier": KNeighborsClassifier(),
    "DecisionTreeClassifier": DecisionTreeClassifier(max_depth=3),
}


@pytest.mark.parametrize("model", SEVERAL.values(), ids=SEVERAL)
def test_one_label_of_one_of_several_outputs(model):
    model = clone(model).fit(ROWS, np.stack([np.where(BOTH[:, 0], "b", "a"), THREE.astype(str)], 1))
    method = tw.FeatureAblation(model)
    for output, label, column in [(0, "a", 0), (0, "b", 1), (1, "2", 2)]:
        right = ablated(lambda a: model.predict_proba(a)[output][:, column])  # noqa: B023
        torch.testing.assert_close(method.attribute(FEW, (output, label))[:, 1], right)
        whole = method.attribute(FEW, lambda out, output=output, column=column: out[output][:, column])
        torch.testing.assert_close(whole[:, 1], right)
    mixed = method.attribute(FEW, [(0, "a"), (1, "2")])
    torch.testing.assert_close(
        mixed, torch.stack([method.attribute(FEW, t)[i] for i, t in enumerate([(0, "a"), (1, "2")])])
    )
    assert len(method.attribute_each(FEW, "all")) == 5
    for wrong in [(0, "c"), (2, "a"), (1, "predicted"), (-1, "a")]:
        with pytest.raises(
            ValueError, match=r"\(output, label\), of the model's outputs with the classes \[\['a', 'b'\], \['0', "
        ):
            method.attribute(FEW, wrong)
    for wrong in (None, 0, "predicted"):
        with pytest.raises(TypeError, match=r"of a classifier with several outputs \(output, label\)"):
            method.attribute(FEW, wrong)


def test_labels_that_are_there_or_not():
    """Several labels at a time, in one array: a column for each, not for the classes there and not there."""
    chain = ClassifierChain(LogisticRegression()).fit(ROWS, LABELS)
    method = tw.FeatureAblation(chain)
    there = ablated(lambda a: chain.predict_proba(a)[:, 1], 2)
    torch.testing.assert_close(method.attribute(FEW, 1)[:, 2], there)
    torch.testing.assert_close(method.attribute(FEW, (1, 1))[:, 2], there)
    torch.testing.assert_close(method.attribute(FEW, (1, 0))[:, 2], -there)
    ridge = RidgeClassifier().fit(ROWS, LABELS)
    method = tw.FeatureAblation(ridge)
    torch.testing.assert_close(method.attribute(FEW, 1)[:, 2], ablated(lambda a: ridge.decision_function(a)[:, 1], 2))
    with pytest.raises(ValueError, match="more than one score per row"):
        method.attribute(FEW)


def test_a_classifier_that_only_predicts_has_one_for_the_label_and_zero_for_the_others():
    hard = VotingClassifier([("a", LogisticRegression()), ("b", LinearSVC())]).fit(ROWS, THREE * 10)
    method = tw.FeatureAblation(hard)
    for label in (0, 10, 20):
        right = ablated(lambda a: (hard.predict(a) == label).astype(float), 0)  # noqa: B023
        torch.testing.assert_close(method.attribute(FEW, label)[:, 0], right)
    with pytest.raises(ValueError, match="more than one score per row"):
        method.attribute(FEW)
    several = MultiOutputClassifier(LinearSVC()).fit(ROWS, LABELS)
    found = tw.FeatureAblation(several).attribute(FEW, (1, 1))[:, 2]
    torch.testing.assert_close(found, ablated(lambda a: (several.predict(a)[:, 1] == 1).astype(float), 2))
    numbers = tw.FeatureAblation(hard.predict).attribute(FEW)[:, 0]  # who asks for the labels gets them
    torch.testing.assert_close(numbers, ablated(hard.predict, 0), check_dtype=False)


def test_margins_of_a_data_frame():
    frame = pandas.DataFrame(ROWS, columns=list("abcd"))
    model = make_pipeline(ColumnTransformer([("all", StandardScaler(), list("abcd"))]), LinearSVC()).fit(frame, TWO)
    found = tw.FeatureAblation(model).attribute(frame[:2], "no")[:, 1]
    score = lambda a: model.decision_function(pandas.DataFrame(a, columns=list("abcd")))  # noqa: E731
    torch.testing.assert_close(found, -ablated(score))
