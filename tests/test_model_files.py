"""Networks and weights from files: which are read, and what a file may not do."""

import dataclasses
import pickle
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torchwhy.models import load, photo
from torchwhy.models.seeding import seeded


def net(classes=10):
    with seeded(5):
        return load("squeezenet1_1", weights="random", num_classes=classes).model


def checkpoints(state):
    yield "plain.pt", lambda path: torch.save(state, path)
    yield "old.pth", lambda path: torch.save(state, path, _use_new_zipfile_serialization=False)
    yield "tensors.safetensors", lambda path: save_file(state, path)
    yield "training.ckpt", lambda path: torch.save({"epoch": 3, "state_dict": state}, path)
    yield "parallel.pt", lambda path: torch.save({"module." + k: v for k, v in state.items()}, path)


def test_weights_from_a_file(tmp_path):
    state = {name: value + 1 for name, value in net().state_dict().items()}
    for name, write in checkpoints(state):
        write(tmp_path / name)
        loaded = load("squeezenet1_1", weights=tmp_path / name, num_classes=10)
        assert loaded.weights == f"from {tmp_path / name}"
        for key, value in loaded.model.state_dict().items():
            assert torch.equal(value, state[key])


def test_weights_that_do_not_fit(tmp_path):
    torch.save(net().state_dict(), tmp_path / "ten.pt")
    with pytest.raises(ValueError, match=r"ten.pt' does not fit squeezenet1_1; .*num_classes="):
        load("squeezenet1_1", weights=tmp_path / "ten.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="holds a Tensor, not a state_dict"):
        load("squeezenet1_1", weights=tmp_path / "tensor.pt")
    with pytest.raises(FileNotFoundError, match=r"no model file at '.*none.pt'"):
        load("squeezenet1_1", weights=tmp_path / "none.pt")


def test_a_pickled_network_needs_trust(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 1000)).train(), path)
    with pytest.raises(ValueError, match=r"runs code from the file\. Pass trust=True"):
        load(path)
    loaded = load(str(path), trust=True)
    assert not loaded.model.training
    assert loaded.labels[282] == "tiger cat"
    assert loaded.model(loaded.preprocess(photo("coffee"))).shape == (1, 1000)
    wanted = dataclasses.replace(loaded.preprocess, mean=0.5, std=0.5)
    assert wanted(photo("coffee")).min() >= -1


def test_a_pickled_network_needs_its_class(tmp_path, monkeypatch):
    module = types.ModuleType("somebodys_code")
    exec("import torch\nclass Net(torch.nn.Module): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "somebodys_code", module)
    torch.save(module.Net(), tmp_path / "net.pt")
    for hidden in (types.ModuleType("somebodys_code"), None):  # the module without the class, no such module
        monkeypatch.setitem(sys.modules, "somebodys_code", hidden)
        with pytest.raises(ValueError, match="needs the code of a class that cannot be found here"):
            load(tmp_path / "net.pt", trust=True)


def test_untrusted_files_run_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save({"weight": Bomb()}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        for attempt in ({"name": tmp_path / name}, {"name": "resnet18", "weights": tmp_path / name}):
            with pytest.raises(ValueError, match="runs code"):
                load(**attempt)
    assert not (tmp_path / "exploded").exists()


def test_files_that_hold_no_network(tmp_path):
    torch.save(net().state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"not a network. .*load\('resnet18', weights='.*state.pt'\)"):
        load(tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"not a file that torch\.save wrote"):
        load(tmp_path / "text.pt", trust=True)
    (tmp_path / "half.pt").write_bytes(pickle.dumps(["a" * 100])[:50])
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "half.pt", trust=True)
    (tmp_path / "bad.safetensors").write_bytes(b"1234567890")
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        load("resnet18", weights=tmp_path / "bad.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no model file at 'none.pt'"):
        load("none.pt")
    with pytest.raises(ValueError, match="comes with both"):
        load(tmp_path / "state.pt", num_classes=3)


def test_torchscript_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 1)).save(tmp_path / "script.pt")
    for trust in (False, True):
        with pytest.raises(ValueError, match=r"script.pt' is TorchScript"):
            load(tmp_path / "script.pt", trust=trust)
