"""The command line: what it prints and writes, and exit code 2 with a message after a mistake."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import torchwhy as tw
from torchwhy.cli import main, methods_table, metrics_table
from torchwhy.models import shapes_vit

SHAPES = ("--model", "shapes-resnet")


def test_explain_writes_a_figure(run, tmp_path):
    code, out, _ = run(
        "explain",
        "chelsea",
        *SHAPES,
        "--method",
        "saliency",
        "IntegratedGradients",
        "--set",
        "batch_size=4",
        "--out",
        "a.png",
    )
    assert code == 0
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert "shapes-resnet (trained" in out
    assert "IntegratedGradients" in out
    assert "gap" in out


OWN = """
import torchwhy as tw

class RISE(tw.InputXGradient):
    pass

class DeepSHAP(tw.Saliency):
    pass

class Sharper(tw.Attribution):
    power: float = 2.0
    def _attribute(self, problem):
        return tuple(g.abs() ** self.power for g in problem.run.all_gradients(problem.x))
"""


def test_methods_of_ones_own(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "methods_of_mine", raising=False)
    (tmp_path / "methods_of_mine.py").write_text(OWN)
    before = list(sys.path)
    own = ("--method", "methods_of_mine:Sharper")
    code, out, err = run("explain", "chelsea", *SHAPES, *own, "Saliency", "--set", "batch_size=2", "--out", "a.npz")
    assert code == 0, err
    assert "Sharper" in out
    assert np.load("a.npz")["Sharper"].shape == np.load("a.npz")["Saliency"].shape[:1] + (3, 64, 64)
    code, _, err = run("explain-dataset", "chelsea", *SHAPES, *own, "--set", "power=1", "--out", "kept")
    assert code == 0, err
    e = tw.load_dataset("kept")[0]
    assert (e.method, e.settings["power"]) == ("Sharper", 1)
    code, _, err = run("report", "chelsea", *SHAPES, *own, "--metrics", "--out", "r.html")
    assert code == 0, err
    assert "Sharper" in (tmp_path / "r.html").read_text()
    assert sys.path == before
    for name in ("RISE", "DeepSHAP"):  # called as ours, without the settings and baselines that ours gets
        code, _, err = run("explain", "chelsea", *SHAPES, "--method", f"methods_of_mine:{name}", "--out", "a.png")
        assert code == 0, err
    monkeypatch.delitem(sys.modules, "methods_of_mine")


def test_settings_may_be_given_one_by_one(run):
    code, out, _ = run(
        "explain", "chelsea", *SHAPES, "--method", "IntegratedGradients", "--set", "n_steps=7", "--set", "batch_size=4"
    )
    assert code == 0
    assert " 9 evals" in out or "9 evaluations" in out, out


def test_steps_that_are_asked_for_are_taken(run):
    for steps in (7, 11):  # the demo's tolerance would choose their number itself
        code, out, _ = run("explain", "chelsea", *SHAPES, "--set", f"n_steps={steps}")
        assert code == 0
        assert int(out.split(" evals")[0].split()[-1]) - 2 == steps  # and the two ends, for the gap


@pytest.mark.parametrize("target, shown", [("star", "star"), ("3", "star"), ("predicted", "%")])
def test_targets(run, target, shown):
    code, out, _ = run("explain", "coffee", *SHAPES, "--method", "Saliency", "--target", target)
    assert code == 0
    assert shown in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("explain", "no.png", *SHAPES), "no image file at 'no.png'"),
        (("explain", "chelse", *SHAPES), "did you mean 'chelsea'"),
        (("explain", "brokn.png", *SHAPES), "did you mean 'broken.png'"),
        (("explain", "broken.png", *SHAPES), "cannot be read as an image"),
        (("explain", "chelsea", "--model", "resnet81", "--weights", "random"), "resnet18"),
        (("explain", "chelsea", *SHAPES, "--method", "Salency"), "the nearest are Saliency"),
        (
            ("explain", "chelsea", *SHAPES, "--method", "mine.Sharper"),
            "a method of your own is module:Class, as mine:Sharper",
        ),
        (
            ("explain", "chelsea", *SHAPES, "--method", "nowhere:Sharper"),
            "No module named 'nowhere'; expected module:Class",
        ),
        (("explain", "chelsea", *SHAPES, "--method", ":Sharper"), "expected module:Class"),
        (("explain", "chelsea", *SHAPES, "--method", "torchwhy.cam.cam:CEM"), "has no method 'CEM'; there are "),
        (("explain", "chelsea", *SHAPES, "--method", "json:loads"), "no class that derives from tw.Attribution"),
        (("explain", "chelsea", *SHAPES, "--target", "stair"), "star"),
        (("explain", "chelsea", *SHAPES, "--target", "17"), "17"),
        (("explain", "chelsea", *SHAPES, "--set", "n_steps"), "expected NAME=VALUE"),
        (("explain", "chelsea", *SHAPES, "--set", "steps=3"), "has no setting steps; it has"),
        (("explain", "chelsea", "--model", "missing.pt"), "missing.pt"),
        (("explain", "chelsea", *SHAPES, "--size", "0"), "--size: 0 is no number of pixels"),
        (("explain", "chelsea", *SHAPES, "--set", "paper=3"), "has no setting paper; it has"),
        (("explain", "chelsea", *SHAPES, "--set", "batch_size=abc"), "batch_size='abc': expected an int"),
        (("explain", "chelsea", *SHAPES, "--set", "method=simpson"), "method='simpson': expected 'gausslegendre'"),
        (("explain", "chelsea", *SHAPES, "--device", "gpu"), "--device gpu: "),
        (("demo", "--out", "."), "--out: '.' is a folder"),
        (("explain", "chelsea", *SHAPES, "--out", "a.csv"), "is for tables"),
        (("explain", "chelsea", *SHAPES, "--out", "a.png", "./a.png"), "--out: the same path twice"),
        (("explain", "empty", *SHAPES), "'empty': no picture in this folder"),
        (("explain", "chelsea", *SHAPES, "--set", "tolerance=nan"), "tolerance=nan: expected"),
        (("explain", "chelsea", *SHAPES, "--set", "model=3"), "--set model=...: the model is given by --model"),
        (("explain", "chelsea", *SHAPES, "--set", "check=perhaps"), "check='perhaps': expected True or False"),
        (("explain", "chelsea", *SHAPES, "--device", "meta"), "--device meta: there are no numbers on it"),
        (("explain", "chelsea", *SHAPES, "--mean", "0.5", "0.5"), "--mean: 2 numbers for 3 channels"),
        (("explain", "chelsea", *SHAPES, "--range", "0", "1"), None),
        (("explain",), "expected one of pictures, --text and --csv, got none"),
        (("explain", "chelsea", "--text", "a"), "got pictures and --text"),
        (("explain", "chelsea", *SHAPES, "--out", "no/a.png"), "in 'no', which is no folder"),
        (("demo", "--methods", "Saliency", "--out", "no/a.png"), "in 'no', which is no folder"),
        (("explain", "chelsea", *SHAPES, "--out", "a.xyz"), "of no known kind; expected one of"),
    ],
)
def test_mistakes(run, tmp_path, arguments, message):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "empty").mkdir()
    code, _, err = run(*arguments)
    assert code == (2 if message else 0)
    message = message or ""  # a bundled photo has no range to be told
    assert message in err
    assert "Traceback" not in err


def test_a_model_from_a_file(run, tmp_path):
    from torchvision.models import squeezenet1_1

    net = squeezenet1_1(num_classes=5)
    torch.save(net, tmp_path / "net.pt")
    torch.save(squeezenet1_1().state_dict(), tmp_path / "state.pt")
    code, out, err = run("explain", "chelsea", "--model", "net.pt", "--trust", "--method", "Saliency", "--target", "2")
    assert code == 0, err
    assert "class 2" in out
    code, _, err = run("explain", "chelsea", "--model", "net.pt", "--trust", "--method", "Saliency", "--target", "5")
    assert code == 2
    assert "--target: 5 is not the number of a class; they go from 0 to 4" in err
    code, _, err = run("explain", "chelsea", "--model", "net.pt", "--method", "Saliency")
    assert code == 2
    assert "trust" in err
    code, out, err = run(
        "explain", "chelsea", "--model", "squeezenet1_1", "--weights", "state.pt", "--method", "Saliency"
    )
    assert code == 0, err


class Wrapped(nn.Module):
    """The network of shapes with another kind of output, and an odd one."""

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = shapes_vit(), kind

    def forward(self, x):
        y = self.net(x)
        if self.kind == "broken":
            return y.no_such_thing
        return {"dict": {"out": y}, "object": SimpleNamespace(logits=y, loss=None), "maps": y[..., None]}[self.kind]


@pytest.mark.parametrize("kind", ["dict", "object"])
def test_a_model_from_a_file_with_another_size_and_output(run, tmp_path, kind):
    torch.save(Wrapped(kind), tmp_path / "net.pt")
    call = ("explain", "chelsea", "--model", "net.pt", "--trust", "--method", "Saliency")
    code, _, err = run(*call)
    assert code == 2
    assert "--model: net.pt cannot take a picture of 224 × 224 pixels; --size gives another side (RuntimeError: " in err
    code, out, err = run(*call, "--size", "64", "--target", "3")
    assert code == 0, err
    assert "class 3" in out
    code, _, err = run(*call, "--size", "64", "--target", "cat")
    assert code == 2
    assert (
        "the model comes with no class names, so 'cat' cannot be looked up; give a number, or the names by --classes"
        in err
    )


@pytest.mark.parametrize(
    "kind, message",
    [("maps", "net.pt gives (1, 6, 1) for a picture, not one score per class"), ("broken", "AttributeError")],
)
def test_a_model_that_fails(run, tmp_path, kind, message):
    torch.save(Wrapped(kind), tmp_path / "net.pt")
    code, _, err = run("explain", "chelsea", "--model", "net.pt", "--trust", "--method", "Saliency", "--size", "64")
    assert code == 2
    assert message in err


def test_no_command_and_help():
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


def test_methods_are_listed(run):
    code, out, _ = run("methods")
    assert code == 0
    assert out.strip() == methods_table()
    assert run("metrics")[1].strip() == metrics_table()
    shown = {kind: run("methods", "--for", kind)[1] for kind in ("image", "text", "table", "black-box")}
    assert all("| `KernelSHAP` |" in table for table in shown.values())
    assert [kind for kind, table in shown.items() if "| `GradCAM` |" in table] == ["image"]
    assert [kind for kind, table in shown.items() if "| `IntegratedGradients` |" in table] == ["image", "text", "table"]
    assert [kind for kind, table in shown.items() if "| `AttentionFlow` |" in table] == ["image", "text"]
    assert "| `IntegratedGradients` | The gradient integrated from a baseline to the input | ✓ | ✓ | ✓ |" in out
