"""Language models that are spread, under autocast, in lower precision or quantized: right, or one clear sentence."""

import copy

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
