"""How much has to be read to follow one call, from ``attribute`` to its gradient or regression and back."""

import runpy
from pathlib import Path

import pytest

visited_by = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "functions_visited.py"))["visited_by"]

# the most functions, and files, that one call may visit
LIMITS = {
    "Saliency": (35, 12),
    "GradCAM": (58, 17),  # to be (50, 14)
    "LRP": (81, 18),  # to be (70, 16)
    "KernelSHAP": (76, 22),  # to be (65, 15)
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_call_visits_few_functions(name):
    visits = visited_by(name)
    found = "; ".join(f"{visit.function} ({visit.file})" for visit in visits)
    assert visits[0].function == "Attribution.attribute", found
    functions, files = LIMITS[name]
    assert len(visits) <= functions, found
    assert len({visit.file for visit in visits}) <= files, found
