"""The command on whole data sets: the numbers of the library, going on, rows that fail, mistakes."""

import csv
from pathlib import Path

import joblib
import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from torch import nn

import torchwhy as tw
from torchwhy.datasets.store import Store
from torchwhy.models import load, read_image

PICTURES = ("explain-dataset", "scans", "--model", "shapes-resnet", "--batch-size", "2", "--out", "kept")
TABLE = ("explain-dataset", "rows.csv", "--trust", "--batch-size", "16", "--out", "kept", "-q")


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "scans").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 255, (70, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "scans" / f"{i}.png")


@pytest.fixture
def table(tmp_path):
    x = pandas.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=["age", "income", "debt"])
    answer = np.where(x.age > x.debt, "yes", "no")
    joblib.dump(RandomForestClassifier(5, random_state=0).fit(x, answer), tmp_path / "forest.pkl")
    torch.save(nn.Linear(3, 2), tmp_path / "net.pt")
    x.assign(answer=answer, number=(answer == "yes").astype(int)).to_csv(tmp_path / "rows.csv", index=False)
    return x


def test_a_folder_of_pictures_and_going_on(run, scans):
    code, out, err = run(*PICTURES, "--method", "saliency", "--target", "star")
    assert (code, err) == (0, "")
    assert "Saliency: 5 rows into kept" in out
    assert "5 rows explained, 0 failed: kept" in out
    found, loaded = tw.load_dataset("kept"), load("shapes-resnet")
    x = torch.cat([loaded.preprocess(read_image(f"scans/{i}.png")) for i in range(5)])
    expected = tw.Saliency(loaded.model, channels="max").attribute(x, loaded.labels.index("star"))
    torch.testing.assert_close(found[:].attributions, expected)
    with Path("kept/rows.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["row", "file"], *([str(i), f"scans/{i}.png"] for i in range(5))]
    Path("kept/batch-00000001.safetensors").unlink()
    code, out, _ = run(*PICTURES, "--method", "saliency", "--target", "star")
    assert "2 rows explained, 0 failed, 3 were there before" in out
    code, _, err = run(*PICTURES, "--method", "saliency", "--target", "disc")
    assert (code, "give another folder" in err) == (2, True)
    code, _, err = run(*PICTURES, "--method", "saliency", "--target", "star", "--no-resume")
    assert (code, "leave --no-resume out" in err) == (2, True)


def test_of_several_processes_one_speaks(run, scans, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    code, out, err = run(*PICTURES, "--method", "saliency")
    assert (code, out, err) == (0, "", "")


def test_pictures_that_cannot_be_read(run, scans):
    Path("scans/3.png").write_bytes(b"no picture")
    code, _, err = run(*PICTURES, "--method", "saliency")
    assert (code, "3.png" in err) == (2, True)
    assert len(tw.load_dataset("kept")) == 2
    code, out, err = run(*PICTURES[:-1], "noted", "--method", "saliency", "--on-error", "record")
    assert (code, err) == (0, "")
    assert "4 rows explained, 1 failed" in out
    assert "3.png" in out
    assert [row.row for row in tw.load_dataset("noted").failed] == [3]


def test_a_table_by_its_labels(run, table):
    code, out, err = run(*TABLE, "--model", "forest.pkl", "--label", "answer", "--drop", "number")
    assert (code, out, err) == (0, "", "")
    found = tw.load_dataset("kept")
    model = joblib.load("forest.pkl")
    labels = np.where(table.age > table.debt, "yes", "no").tolist()
    expected = tw.ExactShapley(model).explain(table, labels, baselines=tw.Distribution(table))
    torch.testing.assert_close(found[:].attributions, expected.attributions)
    assert list(found.to_dataframe().columns) == ["age", "income", "debt"]
    assert [len(batch) for batch in found.batches()] == [16, 16, 8]


def test_a_network(run, table):
    ask = ("--model", "net.pt", "--method", "IntegratedGradients", "--set", "n_steps=4", "--drop", "answer")
    code, _, err = run(*TABLE, *ask, "--label", "number")
    assert (code, err) == (0, "")
    answers = torch.as_tensor((table.age > table.debt).to_numpy().copy()).long()
    method = tw.IntegratedGradients(torch.load("net.pt", weights_only=False), n_steps=4)
    expected = method.explain(table, answers, baselines=tw.Distribution(table))
    torch.testing.assert_close(tw.load_dataset("kept")[:].attributions, expected.attributions)


def test_a_parquet_file(run, table):
    pytest.importorskip("pyarrow")
    pandas.read_csv("rows.csv").to_parquet("rows.parquet")
    for data, out in (("rows.csv", "kept"), ("rows.parquet", "other")):
        ask = (
            "explain-dataset",
            data,
            "--trust",
            "--model",
            "forest.pkl",
            "--drop",
            "number",
            "--label",
            "answer",
            "--out",
            out,
        )
        code, _, err = run(*ask)
        assert (code, err) == (0, "")
    kept, other = (tw.load_dataset(path)[:] for path in ("kept", "other"))
    assert kept.attributions.equal(other.attributions)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((*PICTURES, "--method", "salency"), "the nearest are Saliency"),
        ((*PICTURES, "--label", "age"), "--label: is for tables"),
        ((*PICTURES[:-1], "scans"), "--out scans: is the folder of the pictures"),
        ((*PICTURES, "--batch-size", "0"), "--batch-size: 0 is no number of rows"),
        ((*PICTURES, "--target", "stair"), "star"),
        (("explain-dataset", "rows.csv", "scans", "--out", "kept"), "or one table"),
        (("explain-dataset", "none", "--model", "shapes-resnet", "--out", "kept"), "no image file at 'none'"),
        ((*TABLE,), "--model: name the file"),
        ((*TABLE, "--model", "forest.pkl", "--label", "sex"), "--label: no column 'sex'"),
        ((*TABLE, "--model", "forest.pkl", "--drop", "sex"), "has no column 'sex'"),
        ((*TABLE[:-2], "rows.csv", "--model", "forest.pkl", "--drop", "answer", "number"), "is a file"),
    ],
)
def test_mistakes(run, scans, table, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert not Path("kept/manifest.json").exists()


def rows_file():
    with Path("kept/rows.csv").open(newline="") as file:
        return [line[1] for line in csv.reader(file)][1:]


def test_the_files_of_the_rows_are_those_that_were_explained(run, scans):
    def again(*more):
        return run(*PICTURES, "--method", "saliency", "--target", "star", *more)

    Path("scans/1.png").write_bytes(b"no picture")
    assert again()[0] == 2  # before any row was explained
    Path("scans/1.png").unlink()
    assert again()[0] == 0
    assert rows_file() == [f"scans/{i}.png" for i in (0, 2, 3, 4)]
    Path("scans/5.png").write_bytes(Path("scans/4.png").read_bytes())
    code, out, _ = again()
    assert (code, "1 rows explained, 0 failed, 4 were there before" in out) == (0, True)
    assert rows_file() == [f"scans/{i}.png" for i in (0, 2, 3, 4, 5)]
    before = Path("kept/rows.csv").read_bytes()
    Path("scans/6.png").write_bytes(Path("scans/4.png").read_bytes())
    assert again("--on-error", "record")[0] == 2  # another job, which is refused, writes nothing
    assert Path("kept/rows.csv").read_bytes() == before


def test_other_files_are_refused(run, scans):
    def again(*names):
        return run("explain-dataset", *names, *PICTURES[2:], "--method", "saliency", "--on-error", "record")

    for i in (1, 2, 3):
        Path(f"scans/{i}.png").write_bytes(b"no picture")  # all are the same to the model
    assert again("scans")[0] == 0
    Path("scans/2.png").rename("scans/2b.png")
    code, _, err = again("scans")
    assert (code, "row 2 was 'scans/2.png', and now it is 'scans/2b.png'" in err) == (2, True)
    Path("scans/2b.png").rename("scans/2.png")
    Path("scans/4.png").rename("4.png")
    code, _, err = again("scans")
    assert (code, "row 4 was 'scans/4.png', and now there is no such row" in err) == (2, True)
    Path("4.png").rename("scans/4.png")
    assert again("scans")[0] == 0
    code, _, _ = again(str(Path("scans").resolve()))  # the same files, named from elsewhere
    assert code == 0
    assert rows_file()[2] == str(Path("scans/2.png").resolve())


def test_why_a_picture_cannot_be_read_is_kept(run, scans):
    Path("scans/3.png").write_bytes(b"no picture")
    Path("scans/9.png").symlink_to("gone.png")
    ask = (*PICTURES, "--method", "saliency", "--on-error", "record")
    code, out, _ = run(*ask)
    assert (code, "4 rows explained, 2 failed" in out) == (0, True)
    found = tw.load_dataset("kept")
    assert [row.row for row in found.failed] == [3, 5]
    assert "3.png" in found.failed[0].error
    assert "9.png" in found.failed[1].error
    assert not any("NaN" in row.error for row in found.failed)
    code, out, _ = run(*ask)
    assert "0 rows explained, 0 failed, 6 were there before, 2 of which had failed and are not tried again" in out


def test_a_folder_in_use_is_a_mistake_in_words(run, scans):
    Path("kept").mkdir()
    with Store("kept").locked():
        code, _, err = run(*PICTURES, "--method", "saliency")
    assert (code, "another process is writing to kept" in err) == (2, True)


def test_errors_of_torch_keep_their_traceback(run, table):
    torch.save(nn.Linear(7, 2), "net.pt")
    with pytest.raises(RuntimeError, match="shapes"):
        run(
            *TABLE,
            "--model",
            "net.pt",
            "--method",
            "IntegratedGradients",
            "--drop",
            "answer",
            "number",
            "--target",
            "1",
        )


@pytest.mark.parametrize("command", [("explain-dataset", "--out", "kept"), ("report", "--out", "page.html")])
def test_data_behind_the_settings_are_no_settings(run, scans, capsys, command):
    with pytest.raises(SystemExit) as left:
        run(command[0], "--model", "shapes-resnet", *command[1:], "--set", "n_steps=4", "scans")
    said = capsys.readouterr().err
    assert (left.value.code, "expected NAME=VALUE, got 'scans'; what is explained comes before --set" in said) == (
        2,
        True,
    )
