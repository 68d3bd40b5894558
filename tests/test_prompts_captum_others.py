"""Prompts of encoder-decoders, and with pictures, give what Captum gives.

Its classes for language models generate on from the prompt, and take no encoder-decoder and no pixels; so these are its plain
methods, of a forward function and masks written by hand.
"""

import language
import multimodal
import pytest
import torch

import torchwhy as tw

captum = pytest.importorskip("captum.attr")
pytest.importorskip("transformers")

TEXT, ANSWER = "Dave lives in Palm Coast", "playing golf"
PAD = 2
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
GAMES = [(captum.FeatureAblation, tw.FeatureAblation), (captum.ShapleyValues, tw.ExactShapley)]


@pytest.fixture(scope="module", params=["t5", "bart"])
def translator(request):
    return language.make(request.param).double()


def log_probabilities(logits, answer):
    """Those of an answer's tokens, (n, tokens), and of all of it, (n,)."""
    each = logits.log_softmax(-1).gather(2, answer.expand(len(logits), -1)[..., None])[..., 0]
    return each, each.sum(1)


def answer_of(model, source, embedded=False):
    """The log probabilities of the answer by a source: token ids (n, T), or their embeddings."""
    answer = language.ids_of(ANSWER, special=False)
    start = torch.full((len(source), 1), model.config.decoder_start_token_id)
    decoder = torch.cat([start, answer[:, :-1].expand(len(source), -1)], 1)
    given = {"inputs_embeds" if embedded else "input_ids": source}
    return log_probabilities(model(**given, decoder_input_ids=decoder, use_cache=False).logits, answer)


@pytest.mark.parametrize(("theirs", "ours"), GAMES, ids=["ablation", "shapley"])
def test_masks_of_an_encoder_and_a_decoder(translator, theirs, ours):
    text = TEXT if ours is tw.FeatureAblation else "Dave lives"  # Captum goes through every order of the features
    ids, prompt = language.ids_of(text), tw.Prompt(language.WordTokenizer(), text, ANSWER)
    baseline = torch.cat([ids[:, :1], torch.full_like(ids[:, 1:], PAD)], 1)  # the first token is no unit
    for number, target in enumerate(("each", None)):
        found = theirs(lambda z, k=number: answer_of(translator, z)[k]).attribute(ids, baselines=baseline)
        expected = found[..., 1:].squeeze().double()
        torch.testing.assert_close(ours(translator).attribute(prompt, target).squeeze().double(), expected, **CLOSE)


def test_gradients_of_an_encoder_and_a_decoder(translator):
    ids, prompt = language.ids_of(TEXT), tw.Prompt(language.WordTokenizer(), TEXT, ANSWER)
    baseline = torch.cat([ids[:, :1], torch.full_like(ids[:, 1:], PAD)], 1)
    table = translator.get_encoder().embed_tokens
    of_layer = captum.LayerIntegratedGradients(lambda z: answer_of(translator, z)[1], table)
    expected = of_layer.attribute(ids, baselines=baseline, n_steps=20).sum(2)
    found = tw.IntegratedGradients(translator, n_steps=20).attribute(prompt)
    torch.testing.assert_close(found, expected[:, 1:], **CLOSE)
    plain = captum.IntegratedGradients(lambda e: answer_of(translator, e, embedded=True)[1])
    points = table(ids).detach(), table(baseline).detach()
    torch.testing.assert_close(plain.attribute(points[0], points[1], n_steps=20).sum(2), expected, **CLOSE)


# --------------------------------------------------------------------------------------------- pixels and words
IMAGE, OTHER = (torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))


@pytest.fixture(scope="module")
def seeing():
    return multimodal.make("llava").double(), multimodal.processor("llava")


def made_by_hand(processor, image):
    """The token ids, and the pixel values, of the question about an image."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    made = processor(text=["<image> what is"], images=[pixels], return_tensors="pt")
    return made["input_ids"], made["pixel_values"].double()


def picture_answer(model, pixels, ids=None, embedded=None):
    """The log probability of the answer by pixels and the ids or embeddings of the question."""
    answer, table = torch.tensor([[multimodal.NUMBERS[w] for w in ("a", "cat")]]), model.get_input_embeddings()
    before = table(ids) if embedded is None else embedded
    z = torch.cat([before, table(answer[:, :-1]).expand(len(before), -1, -1)], 1)
    logits = model(inputs_embeds=z, pixel_values=pixels, use_cache=False).logits
    return log_probabilities(logits[:, before.shape[1] - 1 :], answer)[1]


@pytest.mark.parametrize(("theirs", "ours"), GAMES, ids=["ablation", "shapley"])
def test_masks_over_pixels_and_words(seeing, theirs, ours):
    model, processor = seeing
    side = 2 if ours is tw.FeatureAblation else 1
    (ids, pixels), (_, hidden) = (made_by_hand(processor, image) for image in (IMAGE, OTHER))
    words = (ids != multimodal.IMAGE) & (ids >= 4)  # all but the picture's tokens
    n = int(words.sum())
    rows = torch.arange(16) * side // 16
    masks = n + rows[:, None] * side + rows, torch.where(words, words.cumsum(1) - 1, n + side * side)
    found = theirs(lambda p, i: picture_answer(model, p, i)).attribute(
        (pixels, ids), baselines=(hidden, ids.where(~words, PAD)), feature_mask=(masks[0][None, None], masks[1])
    )
    step = 16 // side
    expected = torch.cat([found[1][words], found[0][0, 0, ::step, ::step].flatten()]).double()
    prompt = tw.Prompt(processor, "<image> what is", "a cat", pictures=tw.PromptPicture(IMAGE, side, OTHER))
    torch.testing.assert_close(ours(model).attribute(prompt)[0].double(), expected, **CLOSE)


def test_gradients_of_pixels_and_words(seeing):
    model, processor = seeing
    (ids, pixels), (_, hidden) = (made_by_hand(processor, image) for image in (IMAGE, OTHER))
    words, table = (ids != multimodal.IMAGE) & (ids >= 4), model.get_input_embeddings()
    points = (pixels, table(ids).detach()), (hidden, table(ids.where(~words, PAD)).detach())
    theirs = captum.IntegratedGradients(lambda p, e: picture_answer(model, p, embedded=e))
    of_pixels, of_words = theirs.attribute(*points, n_steps=20)
    patches = of_pixels.sum(1).unfold(1, 8, 8).unfold(2, 8, 8).sum((3, 4)).flatten()
    expected = torch.cat([of_words.sum(2)[words], patches])
    prompt = tw.Prompt(processor, "<image> what is", "a cat", pictures=tw.PromptPicture(IMAGE, 2, OTHER))
    found = tw.IntegratedGradients(model, n_steps=20).attribute(prompt)
    torch.testing.assert_close(found[0].double(), expected, **CLOSE)
