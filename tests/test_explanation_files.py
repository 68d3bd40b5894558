"""Files of explanations: what was written is read, and whatever else is there is refused with the path."""

import json
import random

import pytest
import torch
from safetensors.torch import save_file

import torchwhy as tw

FORMS = {"attributions": "Tensor", "inputs": "NoneType", "completeness_gap": "NoneType", "standard_error": "NoneType"}
FACTS = {"target": 1, "method": "x", "settings": {}, "evaluations": 1, "seconds": 1.0, "details": {}, "forms": FORMS}


@pytest.mark.parametrize(
    "facts",
    [
        [1],
        3,
        {},
        "null",
        "[" * 100_000,
        "{",
        FACTS | {"forms": [1]},
        FACTS | {"forms": {}},
        FACTS | {"forms": FORMS | {"attributions": "NoneType"}},
        FACTS | {"forms": FORMS | {"attributions": "Module"}},
        FACTS | {"forms": FORMS | {"inputs": "Tensor"}},
        FACTS | {"forms": FORMS | {"inputs": 3}},
        FACTS | {"forms": FORMS | {"more": "Tensor"}},
        FACTS | {"forms": FORMS | {"attributions": "tuple"}},
        FACTS | {"new": 1},
        FACTS | {"details": [1]},
        FACTS | {"settings": "none"},
        FACTS | {"evaluations": "many"},
        FACTS | {"names": 3},
        FACTS | {"names": ["a", "b"]},
        FACTS | {"details": {"neutral": ["a"]}},
    ],
    ids=lambda facts: str(facts)[:60],
)
def test_what_save_did_not_write_is_refused_with_the_path(tmp_path, facts):
    path = tmp_path / "c.safetensors"
    text = facts if isinstance(facts, str) else json.dumps(facts)
    save_file({"attributions.1": torch.ones(2, 3), "0": torch.ones(1)} if "tuple" in text else
              {"attributions.0": torch.ones(2, 3)}, path, metadata={"torchwhy": text})  # fmt: skip
    with pytest.raises(ValueError, match=r"c\.safetensors: not an explanation"):
        tw.Explanation.load(path)


def test_the_facts_that_the_others_are_made_of_are_read(tmp_path):
    path = tmp_path / "c.safetensors"
    save_file({"attributions.0": torch.ones(2, 3)}, path, metadata={"torchwhy": json.dumps(FACTS)})
    assert tw.Explanation.load(path).method == "x"


def test_damaged_files(tmp_path):
    path, broken = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    e = tw.Saliency(torch.nn.Linear(3, 2)).explain(torch.rand(2, 3), 1)
    e.save(path)
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(300):
        at = draw.randrange(len(whole))
        changed = bytearray(whole)
        changed[at] = draw.randrange(256)
        broken.write_bytes(changed if draw.random() < 0.8 else whole[:at])
        try:
            said = str(tw.Explanation.load(broken).attributions.shape)
        except ValueError as error:
            said = str(error)
        assert said == "torch.Size([2, 3])" or "b.safetensors: not an explanation" in said


def test_places_that_are_not_there(tmp_path):
    e = tw.Saliency(torch.nn.Linear(3, 2)).explain(torch.rand(2, 3), 1)
    with pytest.raises(OSError, match=r"none/e\.safetensors"):
        e.save(tmp_path / "none" / "e.safetensors")
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            tw.Explanation.load(path)
