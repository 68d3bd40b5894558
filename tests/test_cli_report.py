"""``torchwhy report`` and ``torchwhy serve``."""

import re

import pytest
import torch
from PIL import Image

import torchwhy.app

SHAPES = ("--model", "shapes-resnet")


def test_a_folder_becomes_one_page(run, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30), (80 * i, 200, 20)).save(folder / f"{i}.png")
    code, out, err = run("report", "scans", *SHAPES, "--method", "gradcam", "LRP", "--metrics", "complexity", "-q")
    assert (code, out, err) == (0, "", "")
    html = (tmp_path / "report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", html) == ["0.png", "1.png", "2.png"]
    assert html.count("<dt>complexity</dt>") == 6
    assert "<figcaption>GradCAM</figcaption>" in html
    assert "<h1>shapes-resnet</h1>" in html


def test_without_metrics(run, tmp_path):
    code, out, _ = run("report", "chelsea", *SHAPES, "--metrics", "--title", "A <cat>", "--out", "a.html")
    html = (tmp_path / "a.html").read_text()
    assert code == 0
    assert "a.html: 1 pictures" in out
    assert "<dt>" not in html
    assert "<h1>A &lt;cat&gt;</h1>" in html


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chelsea", "--out", "a.png"], "a report is a page"),
        (["chelsea", "--out", "none/a.html"], "which is no folder"),
        (["chelsea", "--method", "nothing"], "nothing"),
        (["chelsea", "--metrics", "nothing"], "'nothing' is not in torchwhy.metrics"),
    ],
)
def test_mistakes(run, arguments, words):
    code, _, err = run("report", *arguments, *SHAPES)
    assert code == 2
    assert words in err


def test_pictures_are_served_with_the_methods_that_were_named(run, monkeypatch):
    seen = {}
    monkeypatch.setattr(torchwhy.app, "explore", lambda *args, **more: seen.update(args=args, **more))
    code, out, _ = run("serve", "chelsea", "coffee", *SHAPES, "--method", "LRP", "saliency", "--port", "8765")
    assert code == 0
    assert "127.0.0.1" in out
    _, x, methods = seen["args"]
    assert x.shape[0] == 2
    assert isinstance(x, torch.Tensor)
    assert list(methods) == ["LRP", "Saliency"]
    assert seen["port"] == 8765
