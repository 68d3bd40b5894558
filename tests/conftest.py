import pytest
import torch

torch.set_num_threads(1)  # the networks are tiny: threads only get in each other's way


@pytest.fixture(autouse=True)
def _same_start(monkeypatch):
    """Every test draws the same numbers, whatever ran before it, and tries no memory format because the machine is busy."""
    torch.manual_seed(0)
    monkeypatch.setattr("torchwhy.engine.run.batching.SLOW", float("inf"))


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
