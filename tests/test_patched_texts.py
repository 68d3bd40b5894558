"""Patching between two texts that are given as samples: the same numbers as between their token ids."""

import pytest
import torch
from language import WordTokenizer, ids_of
from language import make as language_model

import torchwhy as tw

CLEAN, CORRUPTED = "Dave lives in Palm Coast", "Anna lives in Madrid Berlin"
METHODS = {
    "activation": tw.ActivationPatching,
    "activation, back": lambda model: tw.ActivationPatching(model, denoise=True),
    "activation, heads": lambda model: tw.ActivationPatching(model, units="position and head"),
    "attribution": tw.AttributionPatching,
    "attribution, layers": lambda model: tw.AttributionPatching(model, units="layer"),
    "edges": tw.EdgeAttribution,
    "edges, points": lambda model: tw.EdgeAttribution(model, n_steps=3),
}
WHY = tw.targets.Contrast("golf", "dull")
BY_ID = tw.targets.Contrast(*(int(ids_of(word, special=False)) for word in ("golf", "dull")))


def prompt(text, response=None, absent="pad"):
    return tw.Prompt(WordTokenizer(), text, response=response, absent=absent)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_two_prompts_are_two_rows_of_token_ids(kind, name):
    model = language_model(kind)
    method = METHODS[name](model)
    found = method.explain(prompt(CLEAN), WHY, baselines=prompt(CORRUPTED))
    expected = method.explain(ids_of(CLEAN), BY_ID, baselines=ids_of(CORRUPTED))
    torch.testing.assert_close(found.attributions, expected.attributions)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.base_scores, expected.base_scores)
    assert bool(found.attributions.any())
    assert found.details["layers"] == expected.details["layers"]
    assert found.plot()


def test_the_positions_of_a_prompt_are_named_by_its_tokens():
    e = tw.AttributionPatching(language_model("gpt2")).explain(prompt(CLEAN), WHY, baselines=prompt(CORRUPTED))
    assert e.details["columns"] == ["<bos>", "Dave", "lives", "in", "Palm", "Coast"]
    drawn = [t.get_text() for t in e.plot().axes[0].get_xticklabels()]
    assert drawn == e.details["columns"]
    assert not e.attributions[0, :, 2:4].abs().max(1).values.equal(torch.zeros(2))


def test_what_is_absent_does_not_matter_between_two_texts():
    method = tw.ActivationPatching(language_model("gpt2"))
    kept = method.attribute(prompt(CLEAN), WHY, baselines=prompt(CORRUPTED))
    assert method.attribute(prompt(CLEAN, absent="remove"), WHY, baselines=prompt(CORRUPTED)).equal(kept)


def test_a_response_is_explained_with_its_tokens_behind_both_prompts():
    model = language_model("gpt2")
    both = [prompt(text, response="golf film") for text in (CLEAN, CORRUPTED)]
    found = tw.ActivationPatching(model).explain(both[0], baselines=both[1])
    ids = [ids_of(f"{text} golf film") for text in (CLEAN, CORRUPTED)]

    def log_probability(output):
        said = output.logits[:, -3:-1].log_softmax(-1)
        return said.gather(2, ids[0][:, -2:, None].expand(len(said), -1, -1)).sum((1, 2))

    expected = tw.ActivationPatching(model).attribute(ids[0], log_probability, baselines=ids[1])
    torch.testing.assert_close(found.attributions, expected)


def test_several_rows_are_as_each_alone():
    model = language_model("gpt2")
    texts = ([CLEAN, "Tom lives in Berlin not"], [CORRUPTED, "Tom lives in Madrid not"])
    together = tw.ActivationPatching(model).explain(prompt(texts[0]), WHY, baselines=prompt(texts[1]))
    each = [tw.ActivationPatching(model).attribute(prompt(a), WHY, baselines=prompt(b)) for a, b in zip(*texts)]
    torch.testing.assert_close(together.attributions, torch.cat(each))
    assert together[1].plot()


def test_texts_of_an_encoder():
    model, tokenizer = language_model("bert"), WordTokenizer(ends=True)
    texts = [tw.Text(tokenizer, text) for text in (CLEAN, CORRUPTED)]
    method = tw.AttributionPatching(model)
    found = method.explain(texts[0], 1, baselines=texts[1])
    rows = [tokenizer(text) for text in (CLEAN, CORRUPTED)]
    ids = [torch.tensor([row["input_ids"]]) for row in rows]
    expected = method.attribute(ids[0], 1, baselines=ids[1])
    torch.testing.assert_close(found.attributions, expected)
    assert found.details["columns"][1:3] == ["Dave", "lives"]


def test_a_decoder_of_its_own_has_its_response_in_the_target():
    model = language_model("t5")
    both = [prompt(text, response="golf film") for text in (CLEAN, CORRUPTED)]
    found = tw.AttributionPatching(model, layer=[tw.Layer(f"encoder.block.{i}", output=0) for i in range(2)]).explain(
        both[0], baselines=both[1]
    )
    assert found.attributions.shape == (1, 2, ids_of(CLEAN).shape[1])
    assert bool(found.attributions.any())


def test_what_cannot_be_compared_is_refused():
    model = language_model("gpt2")
    for method in (tw.ActivationPatching(model), tw.AttributionPatching(model), tw.EdgeAttribution(model)):
        for other, error, said in (
            (None, TypeError, r"baselines=tw\.Prompt\(\.\.\.\); none was given"),
            (ids_of(CORRUPTED), TypeError, "Tensor was given"),
            (prompt("Anna lives"), ValueError, "1 × 3 tokens where inputs has 1 × 6 tokens"),
        ):
            with pytest.raises(error, match=said):
                method.attribute(prompt(CLEAN), WHY, baselines=other)
    uneven = [prompt(["Dave lives in", "Tom lives"]), prompt(["Dave lives", "Tom lives in"])]
    with pytest.raises(ValueError, match="another attention_mask than inputs"):
        tw.ActivationPatching(model).attribute(uneven[0], WHY, baselines=uneven[1])
    with pytest.raises(TypeError, match="the sample has its own"):
        tw.Saliency(model).attribute(prompt(CLEAN), WHY, baselines=prompt(CORRUPTED))
