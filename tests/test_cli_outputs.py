"""What the command writes: figures, numbers, pages; never over what it reads; quiet where it is asked to be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import torchwhy as tw
from torchwhy.cli import main
from torchwhy.models import Preprocess, load, photo, read_image

SHAPES = ("--model", "shapes-resnet")


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("chelsea", "coffee"):
        photo(name).resize((90, 80)).save(tmp_path / "pictures" / f"{name}.png")

    def call(*arguments):
        code = main(list(arguments))
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_a_folder_of_pictures_gives_the_numbers_of_the_library(run, tmp_path):
    code, _, err = run(
        "explain", "pictures", "rocket", *SHAPES, "--method", "Saliency", "gradcam",
        "--set", "signed=false", "--out", "a.npz", "a.json", "a.png", "a.html",
    )  # fmt: skip
    assert code == 2, "GradCAM has no setting signed"
    assert "has no setting signed" in err
    code, _, err = run(
        "explain", "pictures", "rocket", *SHAPES, "--method", "Saliency", "IntegratedGradients", "--set", "n_steps=4",
        "--out", "a.npz",
    )  # fmt: skip
    assert "has no setting n_steps" in err
    code, _, err = run(
        "explain", "pictures", "rocket", *SHAPES, "--method", "IntegratedGradients", "--set", "n_steps=4",
        "--out", "a.npz", "a.json", "a.png", "a.html",
    )  # fmt: skip
    assert code == 0, err
    assert err == "", "no bar where stderr is no terminal"
    loaded = load("shapes-resnet")
    files = [tmp_path / "pictures" / "chelsea.png", tmp_path / "pictures" / "coffee.png"]
    x = torch.cat([loaded.preprocess(p) for p in (*map(read_image, files), photo("rocket"))])
    expected = tw.IntegratedGradients(loaded.model, n_steps=4).explain(x, "predicted")
    arrays = np.load(tmp_path / "a.npz")
    np.testing.assert_allclose(arrays["IntegratedGradients"], expected.attributions.numpy(), atol=1e-6)
    np.testing.assert_allclose(arrays["IntegratedGradients.completeness_gap"], expected.completeness_gap, atol=1e-5)
    predicted = loaded.model(x).argmax(1)
    assert arrays["row.target"].tolist() == predicted.tolist()
    assert arrays["row.file"].tolist() == ["pictures/chelsea.png", "pictures/coffee.png", "rocket"]
    said = json.loads((tmp_path / "a.json").read_text())
    assert [row["label"] for row in said["rows"]] == [loaded.labels[c] for c in predicted]
    numbers = np.array([row["methods"]["IntegratedGradients"]["attributions"] for row in said["rows"]])
    np.testing.assert_allclose(numbers, expected.attributions.numpy(), atol=1e-6)
    assert said["methods"]["IntegratedGradients"]["settings"] == {"n_steps": 4}
    assert "<html" in (tmp_path / "a.html").read_text()[:200]


def test_a_folder_to_write_into_gets_a_figure_each(run, tmp_path):
    (tmp_path / "out").mkdir()
    photo("coffee").resize((70, 70)).save(tmp_path / "coffee.jpg")
    code, _, err = run("explain", "pictures", "coffee.jpg", *SHAPES, "--method", "Saliency", "--out", "out")
    assert code == 0, err
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["chelsea-why.png", "coffee-2-why.png", "coffee-why.png"]


def test_many_pictures_are_no_figure(run, tmp_path, monkeypatch):
    monkeypatch.setattr("torchwhy.cli.explain_pictures.MOST_ON_A_FIGURE", 1)
    monkeypatch.setattr("torchwhy.cli.explain_pictures.AT_A_TIME", 1)
    code, _, err = run("explain", "pictures", *SHAPES, "--method", "Saliency", "--out", "a.png")
    assert code == 2
    assert "--out: 2 pictures do not fit on one figure" in err
    code, _, err = run("explain", "pictures", *SHAPES, "--method", "Saliency", "-q")
    assert code == 0, err
    assert sorted(p.name for p in (tmp_path / "explanations").iterdir()) == ["chelsea-why.png", "coffee-why.png"]


def test_what_is_read_is_never_written(run, tmp_path):
    picture, model = tmp_path / "pictures" / "coffee.png", tmp_path / "net.pt"
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), model)
    before = picture.read_bytes(), model.read_bytes()
    saliency = ("--method", "Saliency")
    for out, message in (
        ("pictures/coffee.png", "is what is read"),
        ("net.pt", "of no known kind"),
        ("link.png", "is a link to"),
        ("other.png", "is what is read"),
    ):
        if out == "link.png":
            (tmp_path / "important.txt").write_text("important")
            (tmp_path / out).symlink_to(tmp_path / "important.txt")
        if out == "other.png":
            (tmp_path / out).hardlink_to(picture)
        code, _, err = run("explain", "pictures/coffee.png", "--model", "net.pt", "--trust", *saliency, "--out", out)
        assert code == 2
        assert message in err
    assert (picture.read_bytes(), model.read_bytes()) == before
    assert (tmp_path / "important.txt").read_text() == "important"


def test_quiet_and_words_for_true_and_false(run):
    code, out, err = run(
        "explain", "coffee", *SHAPES, "--method", "Saliency", "--quiet", "--set", "signed=True", "--out", "a.npz"
    )
    assert (code, out, err) == (0, "", "")
    assert (np.load("a.npz")["Saliency"] < 0).any()
    for word in ("false", "False", "FALSE"):
        code, out, err = run(
            "explain", "coffee", *SHAPES, "-q", "--method", "Saliency", "--set", f"signed={word}", "--out", "a.npz"
        )
        assert (code, out, err) == (0, "", "")
        assert (np.load("a.npz")["Saliency"] >= 0).all()


def test_grey_networks_and_deep_pictures(run, tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    torch.save(net, tmp_path / "grey.pt")
    ramp = np.linspace(100, 4195, 40 * 40).reshape(40, 40).round().astype("uint16")
    Image.fromarray(ramp).save(tmp_path / "scan.png")
    code, _, err = run(
        "explain", "scan.png", "--model", "grey.pt", "--trust", "--size", "40", "--mean", "0", "--std", "1",
        "--range", "100", "4195", "--method", "InputXGradient", "--target", "1", "--out", "a.npz", "a.png",
    )  # fmt: skip
    assert code == 0, err
    x = Preprocess(size=40, mean=0.0, std=1.0, channels=1)(read_image("scan.png", value_range=(100, 4195)))
    assert 0.3 < x.mean() < 0.7
    expected = tw.InputXGradient(net).attribute(x, 1)
    np.testing.assert_allclose(
        np.load("a.npz")["InputXGradient"], expected.numpy(), atol=0.01 * float(expected.abs().max())
    )


def test_every_method_that_applies(run, monkeypatch):
    monkeypatch.setattr("torchwhy.demo.for_photos", lambda: ["Saliency", "CAM", "IntegratedGradients"])
    code, out, err = run(
        "explain", "coffee", "--model", "shapes-vit", "--method", "all", "--out", "a.json", "--set", "batch_size=4"
    )
    assert code == 0, err
    assert "CAM                    refused: " in out
    assert set(json.loads(Path("a.json").read_text())["methods"]) == {"Saliency", "IntegratedGradients"}


def test_version_and_completion(run, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert f"torchwhy {tw.__version__}, torch {torch.__version__}" in capsys.readouterr().out
    pytest.importorskip("shtab")
    code, out, _ = run("completion", "bash")
    assert code == 0
    assert "IntegratedGradients" in out
    assert "--method" in out
    checked = subprocess.run(["bash", "-n"], input=out, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_help_has_examples(capsys):
    for arguments in (["-h"], ["explain", "-h"], ["explain-dataset", "-h"], ["completion", "-h"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "examples:\n  torchwhy " in capsys.readouterr().out


@pytest.mark.slow
def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "torchwhy", "methods", "--for", "table"], capture_output=True, text=True, check=True
    )
    assert "KernelSHAP" in done.stdout


def test_a_reader_that_has_enough_is_no_mistake(monkeypatch):
    """As of ``torchwhy metrics | head -1``; that the last flush fails neither is known from closing what is written to."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody_reads:
        monkeypatch.setattr(sys, "stdout", nobody_reads)
        assert main(["metrics"]) == 0
        assert main(["methods"]) == 0


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_mistake_of_a_process():
    code = "import sys\nfrom torchwhy.cli import main\nsys.exit(main(['metrics']) or main(['methods']))"
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.close()
    assert run.stderr.read() == b""
    assert run.wait() == 0


def test_a_folder_by_its_slash_is_made_and_a_figure_is_called_what_it_is(run, capsys):
    assert main(["explain", "pictures", *SHAPES, "--method", "Saliency", "--out", "figures/"]) == 0
    made = [path for path in Path("figures").iterdir() if path.suffix == ".png"]
    assert len(made) == len(list(Path("pictures").iterdir()))
    capsys.readouterr()
    assert main(["explain", "pictures", *SHAPES, "--method", "Saliency", "--out", "why"]) == 0
    assert "why.png:" in "".join(capsys.readouterr())
    assert Path("why.png").is_file()
