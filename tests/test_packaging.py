"""What is installed: the wheel's contents, one version, and a core that runs with torch and NumPy alone."""

import ast
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import torchwhy

ROOT = Path(__file__).parent.parent

# what is refused, as if it were not installed, and what then has to work
ALONE = """
import json, sys
HEAVY = "matplotlib skimage sklearn scipy tqdm safetensors torchvision PIL pandas transformers".split()
import torch
sys.modules.update(dict.fromkeys(HEAVY))  # importing them fails
import torchwhy as tw
torch.manual_seed(0)
from torch import nn
net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
x, mask, background = torch.rand(2, 1, 6, 6), torch.arange(36).view(1, 1, 6, 6) // 9, torch.rand(3, 1, 6, 6)
special = {
    "Occlusion": {"sliding_window_shapes": (1, 2, 2)},
    "OwenValues": {"groups": [[0, 1], [2, 3]]},
    "RISE": {"n_samples": 20, "grid": 3},
    "ExpectedGradients": {"n_samples": 8},
    "LIME": {"n_samples": 8},
    "NeuronConductance": {"neuron": tw.Neuron("0", (0, 1, 1))},
    **{name: {"layer": "0"} for name in ("Conductance", "InternalInfluence", "LayerActivation")},
}
ran, needed = [], {}
for name, method in tw.methods().items():
    options, given = special.get(name, {}), {}
    if method.uses_feature_mask and not method.needs_gradient:
        given["feature_mask"] = mask
    if name in ("ExpectedGradients", "GradientSHAP", "DeepSHAP"):
        given["baselines"] = background
    try:
        if hasattr(method, "n_steps"):
            options = {**options, "n_steps": 4}
        tw_method = method(net, **options)
        tw_method.attribute(x, 1, **given)
        ran.append(name)
    except Exception as error:
        needed[name] = f"{type(error).__name__}: {error}"
e = tw.Saliency(net).explain(x, 1)
float(tw.metrics.deletion(net, x, e, 1, steps=4).auc.sum()), tw.metrics.sparseness(e), repr(e), tw.concat([e, e])[1:]
print(json.dumps([ran, needed]))
"""


def python(code):
    """Run code in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


def test_the_core_runs_with_torch_and_numpy_alone():
    ran, needed = json.loads(python(ALONE).splitlines()[-1])
    assert len(ran) >= 52, needed
    refused = (
        "ValueError: layer: ",
        "ValueError: model: not linear",
        "ValueError: the model computes no attention",
        "LookupError: layer: ",
    )
    missing = {name: why for name, why in needed.items() if not why.startswith(refused)}  # they ask for another network
    assert not missing, missing


def test_what_is_imported_is_declared():
    """Of the package's imports, those inside functions too, none comes by luck with what something else requires."""
    tomllib = pytest.importorskip("tomllib", reason="of Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split(r"[^\w.-]", d)[0].lower().replace("_", "-") for d in declared}
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).split(".")[0])
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image"}
    others = {distributions.get(name, name).lower().replace("_", "-") for name in found - sys.stdlib_module_names}
    assert others - {"torchwhy"} <= names


def test_one_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    version, _ = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", text, re.M)[0]
    assert version == torchwhy.__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    headings = re.findall(r"^## .*$", text, re.M)
    assert all(re.search(r"\(\d{4}-\d\d-\d\d\)$", heading) for heading in headings), headings


def test_the_readme_begins_with_users():
    text = (ROOT / "README.md").read_text()
    before, quick = text.split("## Quick start")
    assert "pip install torchwhy" in before
    assert "pip install torchwhy" not in re.search(r"```\w*\n(.*?)```", quick, re.S).group(1)


def contents_of(folder):
    """Build the wheel and the archive of sources into a folder, and return the names in each."""
    pytest.importorskip("hatchling")
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the archive of sources."""
    return contents_of(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(n for n in names if n.endswith("METADATA"))).decode()
    code = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.py")}
    assert code <= set(names)
    assert {n.split("/")[0] for n in names} == {"torchwhy", f"torchwhy-{torchwhy.__version__}.dist-info"}
    assert {
        "torchwhy/py.typed",
        "torchwhy/visualize/page.html",
        "torchwhy/models/weights/shapes-resnet.safetensors",
    } <= set(names)
    assert not [n for n in names if n.endswith((".pyc", ".png"))]
    assert any(n.endswith("LICENSE") for n in names)
    assert Path(built[0]).stat().st_size < 2_000_000
    assert "Requires-Dist: torch>=" in metadata
    assert "Home-page" not in metadata
    assert "Project-URL" not in metadata  # there is no public address yet


def test_the_archive_of_sources_is_enough_to_test(built):
    with tarfile.open(built[1]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "Makefile",
        "tests/cases.py",
        "docs/index.md",
    } <= names
    assert not [n for n in names if n.startswith(("docs/_build", "docs/notebooks", ".git/"))]
    assert Path(built[1]).stat().st_size < 5_000_000


@pytest.mark.slow
def test_what_is_built_is_fit_for_an_index(built):
    pytest.importorskip("twine")
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *built], capture_output=True, text=True)
    assert not done.returncode, done.stdout


def test_the_form_for_bugs_shows_this_version():
    form = Path(__file__).parent.parent / ".github" / "ISSUE_TEMPLATE" / "bug.yml"
    assert f"placeholder: torchwhy {torchwhy.__version__}," in form.read_text()
