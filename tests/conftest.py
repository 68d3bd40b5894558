import pytest
import torch

torch.set_num_threads(1)  # the networks are tiny: threads only get in each other's way


@pytest.fixture(autouse=True)
def _same_start():
    """Every test draws the same numbers, whatever ran before it."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
