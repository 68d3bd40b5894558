"""Files of explanations: what was written is read, and whatever else is there is refused with the path."""

import json
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import torchwhy as tw
from torchwhy.explanation.safetensors_bytes import TYPE_NAMES, safetensors_bytes

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


def test_the_bytes_are_those_of_a_safetensors_file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {str(kind): torch.randn(3, 5, generator=generator).mul(9).to(kind) for kind in TYPE_NAMES}
    tensors |= {"one number": torch.tensor(2.5), "nothing": torch.zeros(0, 3), "turned": torch.randn(4, 3).T}
    tensors |= {
        "a view": torch.arange(12.0)[3:7],
        "of a graph": torch.ones(2, requires_grad=True) * 3,
        "é": torch.ones(1),
    }
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes(tensors, {"said": 'what it is, "é"'}))
    read = load_file(path)
    assert sorted(read) == sorted(tensors)
    for name, t in tensors.items():
        assert read[name].dtype == t.dtype
        assert read[name].shape == t.shape
        assert (
            read[name].view(torch.uint8).equal(t.detach().contiguous().view(torch.uint8))
            if t.dim()
            else read[name] == t
        )
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"said": 'what it is, "é"'}
    for few in (dict(list(tensors.items())[i : i + 1]) for i in range(len(tensors))):
        path.write_bytes(safetensors_bytes(few, {}))
        assert list(load_file(path)) == list(few)
    with pytest.raises(TypeError, match=r"odd: numbers of type torch\.complex128"):
        safetensors_bytes({"odd": torch.ones(1, dtype=torch.complex128)}, {})


def test_what_is_written_is_a_copy():
    t = torch.ones(3)
    contents = safetensors_bytes({"t": t}, {})
    before = bytes(contents)
    t.zero_()
    assert bytes(contents) == before


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
