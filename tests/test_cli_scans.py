"""The command on scans: their range, of mixed depths, names for the classes, a page for each."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import torchwhy as tw
import torchwhy.app
from torchwhy.models import Preprocess, read_image

NET = ("--model", "net.pt", "--trust", "--size", "16", "--mean", "0", "--std", "1")
HARDLY = "torchwhy: 16-bit pictures use only 0 to 3000 of 65535; if they hold 12 bits, give --range 0 4095\n"
COMMANDS = [
    ("explain", "scans", *NET, "--method", "saliency", "--out", "a.npz", "-q"),
    ("explain-dataset", "scans", *NET, "--method", "saliency", "--out", "kept", "--batch-size", "2", "-q"),
    ("report", "scans", *NET, "--method", "saliency", "--metrics", "-q"),
    ("serve", "scans", *NET, "--method", "saliency"),
    ("inspect", "scans/b16.png", *NET, "--methods", "Saliency"),
]
each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A folder of scans, one of 8 bits and two of 16 that hold 12, and a network of two classes."""
    monkeypatch.setattr(torchwhy.app, "explore", lambda *args, **more: None)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    torch.save(net, tmp_path / "net.pt")
    (tmp_path / "scans").mkdir()
    ramp = np.linspace(0, 1, 256).reshape(16, 16)
    for name, white, kind in (("a8", 255, "uint8"), ("b16", 3000, "uint16"), ("c16", 2000, "uint16")):
        Image.fromarray((ramp * white).round().astype(kind)).save(tmp_path / "scans" / f"{name}.png")
    return tmp_path


@each_command
def test_sixteen_bits_that_are_hardly_used_are_told_of_once(run, scans, command):
    code, _, err = run(*command)
    assert (code, err) == (0, HARDLY)
    code, _, err = run(*[word.replace("kept", "kept2") for word in command], "--range", "0", "4095")
    assert (code, err) == (0, "")


def test_one_that_uses_them_speaks_for_all(run, scans):
    Image.fromarray(np.full((16, 16), 40_000, "uint16")).save(scans / "scans" / "d.png")
    code, _, err = run(*COMMANDS[0])
    assert (code, err) == (0, "")


def test_a_range_is_for_the_deep_ones(run, scans):
    code, _, err = run(*COMMANDS[0], "--range", "0", "3000", "--target", "1")
    assert (code, err) == (0, "")
    show = Preprocess(size=16, mean=0.0, std=1.0, channels=1)
    parts = [show(read_image("scans/a8.png"))]
    parts += [show(read_image(f"scans/{name}.png", value_range=(0, 3000))) for name in ("b16", "c16")]
    net = torch.load("net.pt", weights_only=False)
    expected = tw.Saliency(net, channels="max").attribute(torch.cat(parts), 1)
    np.testing.assert_allclose(np.load("a.npz")["Saliency"], expected.numpy(), rtol=1e-5, atol=1e-7)


@each_command
def test_a_range_without_a_deep_picture(run, scans, command):
    for name in ("b16", "c16"):
        (scans / "scans" / f"{name}.png").unlink()
    command = [word.replace("b16", "a8") for word in command]
    code, _, err = run(*command, "--range", "0", "4095")
    assert code == 2
    assert (
        err == "torchwhy: --range: is for pictures of 16 or 32 bits, and none of these has more than 8; leave it out\n"
    )


def test_mistakes_name_the_flag(run, scans):
    code, _, err = run(*COMMANDS[0], "--range", "9", "9")
    assert (code, err) == (2, "torchwhy: --range 9 9: expected black below white\n")
    Image.fromarray((np.linspace(0, 200, 256).reshape(16, 16)).astype("float32")).save("f.tif")
    code, _, err = run("explain", "f.tif", *NET)
    assert code == 2
    assert "'f.tif': mode F, floats from 0 to 200" in err
    assert "say it with --range 0 200, or" in err


def test_names_of_the_classes(run, scans, monkeypatch):
    names = ("--classes", "healthy", "lesion")
    code, out, err = run(
        "explain", "scans", *NET, *names, "--method", "saliency", "--range", "0", "4095", "--target", "lesion"
    )
    assert code == 0, err
    code, out, err = run(*COMMANDS[0][:-3], *names, "--range", "0", "4095", "--target", "lesion", "--out", "a.html")
    assert code == 0, err
    assert "lesion" in (scans / "a.html").read_text()
    assert re.search(r"lesion \d+%, lesion \d+%, lesion \d+%", out)
    code, _, err = run("report", "scans/a8.png", *NET, *names, "--method", "saliency", "--metrics", "-q")
    assert (code, err) == (0, "")
    assert re.search("healthy|lesion", (scans / "report.html").read_text())
    seen = {}
    monkeypatch.setattr(torchwhy.app, "explore", lambda *args, **more: seen.update(more))
    assert run("serve", "scans/a8.png", *NET, *names, "--target", "lesion")[0] == 0
    assert (seen["target"], seen["classes"]) == (1, ("healthy", "lesion"))


@pytest.mark.parametrize(
    "names, words",
    [
        (("healthy", "lesion", "other"), "--classes: 3 names, and net.pt has 2 classes"),
        (("healthy", "healthy"), "--classes: two are called the same"),
        (("healthy", "lesion", "--target", "leson"), "lesion"),
    ],
)
@pytest.mark.parametrize("command", ["explain", "report", "serve"])
def test_names_that_do_not_fit(run, scans, command, names, words):
    code, _, err = run(command, "scans/a8.png", *NET, "--method", "saliency", "--classes", *names)
    assert code == 2
    assert words in err


def test_a_page_for_each_picture(run, scans):
    (scans / "pages").mkdir()
    code, _, err = run(*COMMANDS[2], "--range", "0", "4095", "--out", "pages/")
    assert (code, err) == (0, "")
    assert sorted(p.name for p in (scans / "pages").iterdir()) == ["a8.html", "b16.html", "c16.html"]
    html = (scans / "pages" / "b16.html").read_text()
    assert re.findall("<h[12]>(.*?)</h[12]>", html).count("b16.png") == 2
    assert "a8.png" not in html


def test_figures_and_the_shell_say_the_same_cost_of_a_picture(run, scans, monkeypatch):
    (scans / "figures").mkdir()
    drawn = []
    monkeypatch.setattr(
        "torchwhy.cli.explain_pictures.draw", lambda loaded, x, shown, rows, out: drawn.extend(shown[0].captions)
    )
    code, out, _ = run("explain", *["scans/a8.png"] * 3, *NET, "--method", "IntegratedGradients", "--out", "figures")
    assert code == 0
    costs = re.findall(r"[\d.]+ s · \d+ evals", out)
    assert len(costs) == 3
    assert [caption.split("\n")[0] for caption in drawn] == costs
