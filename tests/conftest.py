import gc
import os
from contextlib import contextmanager

for library in ("OMP", "OPENBLAS", "MKL"):  # the networks are tiny: threads only get in each other's way
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_start():
    """Every test draws the same numbers, whatever ran before it."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed notes the stack for a GPU that may come: 0.6 ms
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """``run("explain", ...)`` runs the command in an empty folder: its exit code, and what it prints to both streams."""
    from torchwhy.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(list(arguments))
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def optimized(monkeypatch):
    """``with optimized():`` the calls of long work are optimized also for networks that are too small or too precise for it."""

    @contextmanager
    def context():
        with monkeypatch.context() as patch:
            for name in ("CONVOLUTIONAL", "SHORT_CONVOLUTION", "NORMED"):
                patch.setattr(f"torchwhy.engine.run.optimizations.{name}", 0)
            patch.setattr("torchwhy.engine.run.optimizations.LAST_ON_CPU", (torch.float, torch.double))
            yield

    return context


@pytest.fixture
def few_steps_back(monkeypatch):
    """Counterfactuals without gradients are drawn near to their rows in few steps: enough where their form is asked for."""
    monkeypatch.setattr("torchwhy.counterfactual.free_search.CLOSER", 12)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """The garbage collector passes by what is there before the first test: two million objects, half a second each time.

    What the tests leave, of which most needs no collector, it looks through more seldom than of itself.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(2_000, 10, 25)
        gc.enable()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
