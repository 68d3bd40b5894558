"""Models that are spread over processes; language models that are spread, of low precision, quantized: right, or one sentence."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from language import VOCABULARY, WordTokenizer, make

import torchwhy as tw

METHODS = {
    "ExactShapley": tw.ExactShapley,
    "KernelSHAP": lambda m: tw.KernelSHAP(m, generator=0),
    "InputXGradient": tw.InputXGradient,
    "IntegratedGradients": lambda m: tw.IntegratedGradients(m, n_steps=8),
    "LRP": tw.LRP,
    "DeepLIFT": tw.DeepLIFT,
}


@pytest.fixture(scope="module")
def model():
    return make("llama")


def prompts(response="a lawyer", **how):
    return tw.Prompt(WordTokenizer(), ["Dave lives in Palm", "Tom lives"], response, absent=VOCABULARY["golf"], **how)


@pytest.fixture(scope="module", params=["hooks", "memory", "disk"])
def spread(request, model, tmp_path_factory):
    accelerate = pytest.importorskip("accelerate")
    if request.param == "hooks":
        return accelerate.dispatch_model(copy.deepcopy(model), {"": "cpu"}, main_device="cpu", force_hooks=True)
    if request.param == "memory":
        return accelerate.cpu_offload(copy.deepcopy(model), execution_device="cpu")
    return accelerate.disk_offload(copy.deepcopy(model), tmp_path_factory.mktemp("weights"), execution_device="cpu")


@pytest.mark.parametrize("method", METHODS)
def test_parameters_that_are_fetched_for_each_call(model, spread, method):
    found, expected = (METHODS[method](m).attribute(prompts()) for m in (spread, model))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_what_is_known_of_parameters_that_are_elsewhere(model, spread, tmp_path):
    said = [prompts(None, max_new_tokens=3).bind(m).response for m in (spread, model)]
    assert said[0] == said[1]
    e = tw.InputXGradient(spread).explain(prompts())
    e.save(tmp_path / "e.safetensors")
    away = next(spread.parameters()).is_meta
    assert tw.Explanation.load(tmp_path / "e.safetensors").model_hash == (None if away else e.model_hash)


@pytest.mark.filterwarnings("ignore:DeepLIFT")  # its sum is off by rounding
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["autocast", "bfloat16", "half"])
def test_lower_precision_is_off_by_rounding(model, how, method):
    low = copy.deepcopy(model)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        found = METHODS[method](low if how == "autocast" else low.to(getattr(torch, how))).attribute(prompts())
    exact = METHODS[method](model).attribute(prompts())
    eps = torch.finfo(torch.half if how == "half" else torch.bfloat16).eps
    assert float((found.float() - exact).abs().max()) < 12 * eps * float(exact.abs().max())


@pytest.mark.filterwarnings("ignore")
def test_quantized_models_are_masked_and_their_gradients_refused(model):
    low = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8)
    e = tw.ExactShapley(low).explain(prompts(), target="each")
    alone = tw.ExactShapley(low).explain(tw.Prompt(WordTokenizer(), "Tom lives", "a lawyer", absent=VOCABULARY["golf"]))
    size = float(alone.scores.abs())  # activations are quantized by the range of a call
    torch.testing.assert_close(e.attributions[1].sum(0)[:2], alone.attributions[0], atol=0.05 * size, rtol=0)
    for method in (tw.InputXGradient, tw.IntegratedGradients, tw.LRP, tw.DeepLIFT):
        with pytest.raises(ValueError, match="as those of int8 models: choose another target"):
            method(low).attribute(prompts())


# each process runs this: methods without and with rules, of a model spread in each way, against the model in one piece
PROCESS = """
import json, sys, warnings
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
import torchwhy as tw
warnings.simplefilter("ignore")
torch.set_num_threads(1)
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

def fsdp(model):
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=mesh)
    return model

def parallel(model):
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})

def parts(model):
    # a forward pass leaves the outermost of FSDP's parameters whole, also without us; state_dict has them in parts
    return [getattr(p, "to_local", lambda p=p: p)().detach().clone() for p in model.state_dict().values()]

WAYS = {"ddp": nn.parallel.DistributedDataParallel, "fsdp": fsdp, "tensor parallel": parallel}
METHODS = {
    "Saliency": tw.Saliency,
    "IntegratedGradients": lambda m: tw.IntegratedGradients(m, n_steps=8),
    "SmoothGrad": lambda m: tw.SmoothGrad(m, n_samples=4, generator=0),
    "KernelSHAP": lambda m: tw.KernelSHAP(m, generator=0),
    "FeatureAblation": tw.FeatureAblation,
    "ExactShapley": tw.ExactShapley,
    "GuidedBackprop": tw.GuidedBackprop,
    "LRP": tw.LRP,
    "DeepLIFT": tw.DeepLIFT,
}
x, y = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)), torch.arange(5) % 3
found = {}
for way, wrap in WAYS.items():
    for name, make in METHODS.items():
        model = wrap(net())
        before = parts(model)
        try:
            e = make(model).explain(x, y)
            same = all(map(torch.equal, before, parts(model))) and all(p.grad is None for p in model.parameters())
            away = float((e.attributions - make(net()).attribute(x, y)).abs().max())
            e.save(sys.argv[1] + f"/{dist.get_rank()}.safetensors")
            found[f"{way}, {name}"] = [away, same, e.model_hash is not None]
        except Exception as error:
            found[f"{way}, {name}"] = f"{type(error).__name__}: {error}"
try:
    tw.explain_dataset(tw.Saliency(fsdp(net())), [x], sys.argv[1] + "/kept", target=1)
except ValueError as error:
    found["dataset"] = str(error)
if dist.get_rank() == 0:
    print(json.dumps(found))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_models_that_are_spread_over_two_processes(tmp_path):
    (tmp_path / "job.py").write_text(PROCESS)
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(tmp_path / "job.py"),
        str(tmp_path),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert "none can have batches of its own" in found.pop("dataset")
    assert not (tmp_path / "kept").exists()
    refused = {f"tensor parallel, {name}" for name in ("LRP", "DeepLIFT")}
    assert len(found) == 27
    for case, said in found.items():
        if case in refused:
            assert said.startswith("ValueError: model: its parameters are spread"), (case, said)
        else:
            away, unchanged, known = said
            assert away < 1e-6, (case, said)
            assert unchanged, case
            assert known == case.startswith("ddp"), case
