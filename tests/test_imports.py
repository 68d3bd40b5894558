"""What an import brings with it: in a fresh interpreter, one step after the other."""

import json
import subprocess
import sys

import pytest

HEAVY = ["torchvision", "skimage", "sklearn", "matplotlib", "PIL", "timm", "scipy", "safetensors", "tqdm", "pandas"]


def steps(*code):
    """Run code in one fresh interpreter, and return what modules each step adds to those before it."""
    script = "import json, sys\nadded, seen = [], set(sys.modules)\n"
    for line in code:
        script += f"{line}\nadded.append(sorted(set(sys.modules) - seen)); seen |= set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", f"{script}print(json.dumps(added))"], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


PACKAGES = "torchwhy.lrp.Gamma(0.25); torchwhy.baselines.Blur(); torchwhy.metrics.deletion; torchwhy.visualize.grid"


def test_importing_imports_nothing_heavy():
    (first,) = steps("import torchwhy as tw")
    assert not {"torch", "numpy", "difflib", "matplotlib"} & set(first)


@pytest.fixture(scope="module")
def behind_torch():
    """What is added to torch, step by step; the packages at last are there without an import of them."""
    code = ("import torch", "import torchwhy", "torchwhy.IntegratedGradients", "import torchwhy.models", PACKAGES)
    return dict(zip(code, steps(*code)))


def test_importing_adds_two_modules_at_most(behind_torch):
    found = behind_torch["import torchwhy"]
    assert len(found) <= 2, found


@pytest.mark.parametrize(
    "step", ["import torchwhy", "torchwhy.IntegratedGradients", "import torchwhy.models", PACKAGES]
)
def test_importing_is_light(step, behind_torch):
    heavy = set(HEAVY) & {name.split(".")[0] for name in behind_torch[step]}
    assert not heavy
