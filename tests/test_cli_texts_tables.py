"""The command on texts and tables, and which methods are for which data."""

import json
from pathlib import Path

import joblib
import numpy as np
import pandas
import pytest
import torch
from language import WordTokenizer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from torch import nn

import torchwhy as tw
from torchwhy.methods_for import methods_for
from torchwhy.models import language


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    x = pandas.DataFrame(rng.normal(size=(40, 3)), columns=["age", "income", "debt"])
    answer = np.where(x.age > x.debt, "yes", "no")
    joblib.dump(RandomForestClassifier(5, random_state=0).fit(x, answer), tmp_path / "forest.pkl")
    joblib.dump(LinearRegression().fit(x, 3 * x.age - x.debt), tmp_path / "line.pkl")
    torch.save(nn.Linear(3, 2), tmp_path / "net.pt")
    x.assign(label=answer).to_csv(tmp_path / "rows.csv", index=False)
    return x


TABLE = ("explain", "--csv", "rows.csv", "--trust", "--drop", "label", "-q")


def test_a_table_gives_the_numbers_of_the_library(run, table):
    code, _, err = run(
        *TABLE,
        "--model",
        "forest.pkl",
        "--target",
        "yes",
        "--rows",
        "2:5",
        "--out",
        "a.csv",
        "a.json",
        "a.npz",
        "a.png",
    )
    assert (code, err) == (0, "")
    model = joblib.load("forest.pkl")
    expected = tw.ExactShapley(model).explain(table.iloc[2:5], "yes", baselines=tw.Distribution(table))
    found = pandas.read_csv("a.csv")
    assert list(found.columns) == ["age", "income", "debt"]
    np.testing.assert_allclose(found.to_numpy(), expected.attributions.numpy(), atol=1e-9)
    np.testing.assert_allclose(np.load("a.npz")["KernelSHAP"], expected.attributions.numpy(), atol=1e-9)
    said = json.loads(Path("a.json").read_text())
    assert [row["row"] for row in said["rows"]] == [2, 3, 4]
    assert said["columns"] == ["age", "income", "debt"]


def test_regressions_and_networks(run, table):
    code, _, err = run(*TABLE, "--model", "line.pkl", "--rows", "0", "--out", "a.csv")
    assert (code, err) == (0, "")
    expected = (table - table.mean()).iloc[0].to_numpy() * [3, 0, -1]
    np.testing.assert_allclose(pandas.read_csv("a.csv").to_numpy()[0], expected, atol=1e-9)
    code, _, err = run(*TABLE, "--model", "net.pt", "--target", "1", "--method", "ExpectedGradients", "--out", "a.csv")
    assert (code, err) == (0, "")
    assert pandas.read_csv("a.csv").shape == (40, 3)


def test_a_background_has_its_columns_in_any_order_with_labels_or_without(run, table):
    less = table.iloc[:5]
    less[["debt", "age", "income"]].to_csv("less.csv", index=False)
    less.assign(label="yes").to_csv("more.csv", index=False)
    expected = (table - less.mean()).iloc[0].to_numpy() * [3, 0, -1]
    for name in ("less.csv", "more.csv"):
        code, _, err = run(*TABLE, "--model", "line.pkl", "--rows", "0", "--background", name, "--out", "a.csv")
        assert (code, err) == (0, "")
        np.testing.assert_allclose(pandas.read_csv("a.csv").to_numpy()[0], expected, atol=1e-9)
    less[["age"]].to_csv("few.csv", index=False)
    code, _, err = run(*TABLE, "--model", "line.pkl", "--background", "few.csv")
    assert code == 2
    assert "--background: 'few.csv' has no column 'income'; it has 'age'" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--model", "forest.pkl", "--target", "maybe"), "--target: 'maybe' is none of the labels 'no', 'yes'"),
        (("--model", "none.pkl"), "--model: no file at 'none.pkl'"),
        (("--model", "rows.csv"), "'rows.csv' cannot be read"),
        (("--model", "forest.pkl", "--rows", "90:95"), "--rows: 90:95 of a table with 40 rows"),
        (("--model", "forest.pkl", "--rows", "a"), "--rows: expected FROM:TO"),
        (("--model", "forest.pkl", "--out", "rows.csv"), "is what is read"),
        (("--model", "forest.pkl", "--background", "gone.csv"), "gone.csv"),
        (
            ("--model", "net.pt", "--target", "yes"),
            "'yes' is no number, and the model has no labels; --classes names them",
        ),
        (("--model", "net.pt", "--target", "ye", "--classes", "no", "yes"), "yes"),
        (("--model", "net.pt", "--classes", "no"), "--classes: 1 names, and class 1 is explained"),
        (
            ("--model", "forest.pkl", "--classes", "a", "b"),
            "--classes: is for models without names; this one has 'no', 'yes'",
        ),
        (("--model", "line.pkl", "--classes", "a", "b"), "this one has no classes"),
        ((), "--model: name the file"),
    ],
)
def test_mistakes_in_tables(run, table, arguments, message):
    code, _, err = run(*TABLE, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_names_of_the_classes_of_a_network(run, table):
    for target in ("yes", "1"):
        names = () if target == "1" else ("--classes", "no", "yes")
        code, _, err = run(
            *TABLE, "--model", "net.pt", *names, "--target", target, "--method", "InputXGradient", "--out",
            f"{target}.csv", f"{target}.html",
        )  # fmt: skip
        assert (code, err) == (0, "")
    assert Path("yes.csv").read_text() == Path("1.csv").read_text()
    assert "yes" in Path("yes.html").read_text()
    code, _, err = run("explain", "--text", "a", "--classes", "no", "yes")
    assert code == 2
    assert "--classes: is for pictures and tables" in err


def test_tables_need_trust_and_known_columns(run, table):
    code, _, err = run("explain", "--csv", "rows.csv", "--model", "forest.pkl", "--drop", "label")
    assert (code, "Pass --trust" in err) == (2, True)
    code, _, err = run("explain", "--csv", "rows.csv", "--model", "forest.pkl", "--trust", "--drop", "answer")
    assert "--drop: 'rows.csv' has no column 'answer'" in err


class Classifier(nn.Module):
    """A bag of words with two classes."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.table, self.out = nn.Embedding(60, 4), nn.Linear(4, 2)

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids, attention_mask=None):
        return self.out(torch.tanh(self.table(input_ids)).mean(1))


def test_a_text_gives_the_numbers_of_the_library(run, monkeypatch):
    loaded = language.TextModel(Classifier().eval(), WordTokenizer(), ("dull", "great"), True)
    monkeypatch.setattr(language, "load_folder", lambda folder: loaded)
    text = ("explain", "--text", "film of great charm", "--model", "folder")
    code, out, err = run(*text, "--target", "great", "--method", "ExactShapley", "--out", "a.json", "a.png", "a.html")
    assert code == 0, err
    sample = tw.Text(loaded.tokenizer, "film of great charm", absent="mask")
    expected = tw.ExactShapley(loaded.model).explain(sample, 1).features()[0]
    said = json.loads(Path("a.json").read_text())["rows"][0]
    np.testing.assert_allclose(said["methods"]["ExactShapley"]["attributions"], expected.numpy(), atol=1e-6)
    assert said["label"] == "great"
    assert all(word in out for word in ("film", "of", "great", "charm"))
    code, out, err = run(*text, "--method", "all", "--set", "batch_size=8", "--out", "a.json")
    assert code == 0, err
    assert "AttentionRollout       refused" in out
    assert {"KernelSHAP", "IntegratedGradients", "LRP"} <= set(json.loads(Path("a.json").read_text())["methods"])
    code, _, err = run(*text, "--response", "yes")
    assert "--response: is for language models; this one classifies" in err
    code, _, err = run(*text, "--target", "grat")
    assert "great" in err


def test_folders_without_a_model(run, tmp_path):
    code, _, err = run("explain", "--text", "a", "--model", str(tmp_path))
    assert code == 2
    assert "no folder with a model that transformers saved" in err
    (tmp_path / "config.json").write_text("{}")
    code, _, err = run("explain", "--text", "a", "--model", str(tmp_path))
    assert code == 2
    assert "transformers cannot read it" in err


def test_methods_for_black_boxes_take_a_function():
    x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    for name, method in methods_for("black-box").items():
        if name != "LinearSHAP":  # which asks for a model that is linear
            settings = {"groups": [0, 0, 1]} if name == "OwenValues" else {}
            found = method(lambda z: z.sum(1) * z[:, 0], **settings).attribute(x)
            assert found.shape == x.shape, name


def test_methods_for_tables_take_rows():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    linear = nn.Linear(3, 2)
    for name, method in methods_for("table").items():
        settings = {"IDGI": {"of": tw.IntegratedGradients(net)}, "OwenValues": {"groups": [0, 0, 1]}}.get(name, {})
        found = method(linear if name == "LinearSHAP" else net, **settings).attribute(x, 1)
        assert found.shape == x.shape, name


def test_kinds_of_data_are_known():
    with pytest.raises(ValueError, match="kind='sound': expected one of image, text, table, black-box"):
        methods_for("sound")
