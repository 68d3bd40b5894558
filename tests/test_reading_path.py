"""How much has to be read to follow one call, from ``attribute`` to its gradient or regression and back."""

import runpy
from pathlib import Path

import pytest

visited_by = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "functions_visited.py"))["visited_by"]

# the most functions, and files, that one call may visit, of one row: several rows bring the trials of check=True besides
LIMITS = {
    "Saliency": (35, 12),
    "GradCAM": (50, 14),
    "LRP": (70, 16),
    "KernelSHAP": (65, 15),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_call_of_one_row_visits_few_functions(name):
    visits = visited_by(name)
    found = "; ".join(f"{visit.function} ({visit.file})" for visit in visits)
    assert visits[0].function == "Attribution.attribute", found
    functions, files = LIMITS[name]
    assert len(visits) <= functions, found
    assert len({visit.file for visit in visits}) <= files, found
