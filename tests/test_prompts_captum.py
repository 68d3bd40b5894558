"""Prompts with a tokenizer of Hugging Face give what Captum gives, where that is right.

With transformers 5 its default, ``use_cached_outputs=True``, is not: cached tokens are fed twice.
"""

import warnings

import pytest
import torch

import torchwhy as tw

captum = pytest.importorskip("captum.attr")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

PROMPT, ANSWER = "Dave lives in Palm Coast and is a lawyer", "playing golf and cooking"
WORDS = ["<unk>", "<s>", "<pad>", "</s>", *f"{PROMPT} playing golf cooking".split()]


@pytest.fixture(scope="module")
def tokenizer():
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", pad_token="<pad>", eos_token="</s>"
    )


@pytest.fixture(scope="module", params=["llama", "gpt2", pytest.param("qwen2", marks=pytest.mark.slow)])
def model(request):
    torch.manual_seed(0)
    head = {"vocab_size": len(WORDS), "bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 3, "initializer_range": 0.3}
    if request.param == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=32, **head)
        return transformers.GPT2LMHeadModel(config).eval()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    name = {"llama": "Llama", "qwen2": "Qwen2"}[request.param]
    config = getattr(transformers, f"{name}Config")(num_key_value_heads=2, **sizes, **head)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def ask(attribution, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attribution.attribute(*args, **kwargs)


@pytest.mark.parametrize(
    "theirs, ours",
    [(captum.FeatureAblation, tw.FeatureAblation), (captum.ShapleyValues, tw.ExactShapley)],
    ids=["ablation", "shapley"],
)
def test_masks(model, tokenizer, theirs, ours):
    text = PROMPT if theirs is captum.FeatureAblation else "Dave lives in"
    given = captum.TextTokenInput(text, tokenizer, baselines=2)
    attribution = captum.LLMAttribution(theirs(model), tokenizer)
    whole = ask(attribution, given, target=ANSWER, forward_in_tokens=False).seq_attr
    each = ask(attribution, given, target=ANSWER, use_cached_outputs=False).token_attr
    prompt = tw.Prompt(tokenizer, text, ANSWER)
    torch.testing.assert_close(ours(model).attribute(prompt)[0], whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours(model).attribute(prompt, "each")[0], each, atol=1e-4, rtol=1e-4)


def test_gradients(model, tokenizer):
    table = model.get_input_embeddings()
    attribution = captum.LLMGradientAttribution(captum.LayerIntegratedGradients(model, table), tokenizer)
    expected = ask(attribution, captum.TextTokenInput(PROMPT, tokenizer, baselines=2), target=ANSWER)
    prompt = tw.Prompt(tokenizer, PROMPT, ANSWER)
    found = tw.IntegratedGradients(model).explain(prompt, "each")
    torch.testing.assert_close(found.attributions[0], expected.token_attr, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.attributions[0].sum(0), expected.seq_attr, atol=1e-3, rtol=1e-3)


def test_templates(model, tokenizer):
    given = captum.TextTemplateInput("{} lives in {}", values=["Dave", "Palm"], baselines=["cooking", "golf"])
    attribution = captum.LLMAttribution(captum.ShapleyValues(model), tokenizer)
    expected = ask(attribution, given, target=ANSWER, use_cached_outputs=False).seq_attr
    prompt = tw.Prompt(
        tokenizer, "{a} lives in {b}", ANSWER, units={"a": "Dave", "b": "Palm"}, absent={"a": "cooking", "b": "golf"}
    )
    torch.testing.assert_close(tw.ExactShapley(model).attribute(prompt)[0], expected, atol=1e-4, rtol=1e-4)
