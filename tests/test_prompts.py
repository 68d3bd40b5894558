"""Prompts for language models in the place of inputs: units, absence, responses, each token of them."""

import pytest
import torch
from cases import in_turn
from language import VOCABULARY, WordTokenizer, ids_of, make
from test_samples import shapley
from torch import nn

import torchwhy as tw

PROMPTS, ANSWER = ["Dave lives in Palm Coast", "Anna lives in Berlin ."], "a lawyer"
CAUSAL, DECODERS = ["gpt2", "llama"], ["t5", "bart"]


@pytest.fixture(scope="module")
def models():
    known = {}

    def model(kind):
        return known.setdefault(kind, make(kind))

    return model


def log_probs(model, prompt, response):
    """The log probability of each token of a response, by a call of its own, nothing padded.  Prompt: a text or ids."""
    ids = ids_of(prompt) if isinstance(prompt, str) else prompt
    answer = ids_of(response, special=False) if isinstance(response, str) else response
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            logits = model(input_ids=ids, decoder_input_ids=torch.cat([start, answer[:, :-1]], 1)).logits
        else:
            logits = model(torch.cat([ids, answer], 1)).logits[:, ids.shape[1] - 1 : -1]
    return logits.log_softmax(2).gather(2, answer[..., None])[0, :, 0]


def by_hand(model, text, absent, response=ANSWER, target=None):
    """Shapley values of the words of a text, from texts without some of them."""
    words = text.split()
    token = {"pad": "<pad>", VOCABULARY["golf"]: "golf"}.get(absent)

    def value(there):
        shown = " ".join(w if i in there else token for i, w in enumerate(words) if i in there or token)
        found = log_probs(model, shown, response)
        return float(found.sum() if target is None else found[target])

    return shapley(value, len(words))


@pytest.mark.parametrize(
    "kind, absent", in_turn([*CAUSAL, "roberta", *DECODERS], ["remove", VOCABULARY["golf"], "pad"], 1)
)
def test_shapley_of_a_prompt_is_that_of_texts_made_by_hand(models, kind, absent):
    model, texts, answers = models(kind), [PROMPTS[0], "Anna lives in", "Tom lives"], [ANSWER, "golf", ANSWER]
    prompt = tw.Prompt(WordTokenizer(), texts, response=answers, absent=absent)
    e = tw.ExactShapley(model, batch_size=5).explain(prompt)
    for row, (text, answer) in enumerate(zip(texts, answers)):
        expected = by_hand(model, text, absent, answer)
        torch.testing.assert_close(e.features()[row], expected, atol=1e-5, rtol=1e-5)
        assert e.names[row] == text.split()
        torch.testing.assert_close(float(e.scores[row]), float(log_probs(model, text, answer).sum()), atol=1e-5, rtol=0)


def test_positions_are_given_where_something_is_padded(models):
    """A model numbers what is whole by itself; one that numbers from its padding numbers everything."""
    alone = tw.Prompt(WordTokenizer(), PROMPTS[0], response=ANSWER)
    padded = tw.Prompt(WordTokenizer(), [PROMPTS[0], "Tom lives"], response=ANSWER)
    assert "position_ids" not in alone.bind(models("gpt2")).arguments
    found = padded.bind(models("gpt2")).arguments["position_ids"]
    assert found.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 1, 2, 3, 4]]
    assert "position_ids" not in padded.bind(models("roberta")).arguments


@pytest.mark.parametrize("kind, absent", in_turn(["llama", "t5"], ["pad", "remove"], 1))
def test_each_token_of_the_response_is_explained(models, kind, absent):
    model, text = models(kind), "Dave lives in"
    prompt = tw.Prompt(WordTokenizer(), text, response=ANSWER, absent=absent)
    e = tw.ExactShapley(model).explain(prompt, target="each")
    assert e.attributions.shape == (1, 2, 3)
    for t in range(2):
        expected = by_hand(model, text, absent, target=t)
        torch.testing.assert_close(e.attributions[0, t], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(e.attributions.sum(1), tw.ExactShapley(model).attribute(prompt), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(e.scores[0], log_probs(model, text, ANSWER), atol=1e-5, rtol=1e-5)
    assert e.details["response"] == [["a", "lawyer"]]
    assert [row.shape for row in e.features()] == [(2, 3)]
    torch.testing.assert_close(tw.ExactShapley(model).attribute(prompt, "each"), e.attributions)
    assert e.evaluations == tw.ExactShapley(model).explain(prompt).evaluations  # one run for all of them


def test_each_token_is_drawn_and_tabled(models, tmp_path):
    pytest.importorskip("pandas")
    prompt = tw.Prompt(WordTokenizer(), PROMPTS, response=["golf", "a lawyer"])
    e = tw.FeatureAblation(models("llama")).explain(prompt, target="each")
    axes = e.plot(row=1).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "lawyer"]
    assert [t.get_text() for t in axes.get_xticklabels()] == PROMPTS[1].split()
    wide, long = e.to_dataframe(), e.to_dataframe(long=True)
    assert wide[["row", "token"]].values.tolist() == [[0, "golf"], [1, "a"], [1, "lawyer"]]
    assert wide.iloc[2, 2:].tolist() == e.attributions[1, 1].tolist()
    assert long["attribution"].tolist() == [*e.attributions[0, 0].tolist(), *e.attributions[1].flatten().tolist()]
    assert long["feature"].tolist()[:5] == PROMPTS[0].split()
    e.save(tmp_path / "each.safetensors")
    loaded = tw.Explanation.load(tmp_path / "each.safetensors")
    assert loaded.names == e.names
    assert loaded.details["response"] == e.details["response"]
    assert e[1:].details["response"] == [["a", "lawyer"]]


def test_each_token_of_responses_of_different_lengths(models):
    prompt = tw.Prompt(WordTokenizer(), PROMPTS, response=["golf", "a lawyer"])
    for method in (tw.InputXGradient(models("llama")), tw.KernelSHAP(models("llama"), generator=0)):
        e = method.explain(prompt, target="each")
        assert e.attributions.shape == (2, 2, 5)
        assert bool((e.attributions[0, 1] == 0).all())
        for row, answer in enumerate(["golf", "a lawyer"]):
            alone = method.attribute(tw.Prompt(WordTokenizer(), PROMPTS[row], response=answer), "each")[0]
            torch.testing.assert_close(e.attributions[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("method", [tw.IntegratedGradients, tw.DeepLIFT])
def test_gradients_of_prompts_add_up_to_the_change(models, kind, method):
    model = models(kind)
    settings = {"tolerance": 1e-3} if method is tw.IntegratedGradients else {}
    golf = VOCABULARY["golf"]  # the embedding of padding is zero, where Llama's norm has a kink
    e = method(model, **settings).explain(tw.Prompt(WordTokenizer(), PROMPTS, response=ANSWER, absent=golf))
    for row, text in enumerate(PROMPTS):
        gone = " ".join("golf" for _ in text.split())
        change = float((log_probs(model, text, ANSWER) - log_probs(model, gone, ANSWER)).sum())
        bound = 1e-3 * abs(change) if method is tw.IntegratedGradients else 1e-4
        assert abs(float(e.attributions[row].sum()) - change) < bound + 1e-5
        assert float(e.completeness_gap[row]) < bound + 1e-5


@pytest.mark.parametrize("kind", CAUSAL)
def test_gradients_are_one_number_for_each_unit(models, kind):
    model = models(kind)
    ids = torch.cat([ids_of(PROMPTS[0]), ids_of(ANSWER, special=False)], 1)
    table = model.get_input_embeddings()
    leaf = table(ids).detach().requires_grad_()
    logits = model(inputs_embeds=leaf).logits[:, 5:-1].log_softmax(2)
    score = logits.gather(2, ids[:, 6:, None]).sum()
    (slope,) = torch.autograd.grad(score, leaf)
    expected = (slope * leaf).sum(2)[0, 1:6].detach()
    prompt = tw.Prompt(WordTokenizer(), PROMPTS[0], response=ANSWER)
    torch.testing.assert_close(tw.InputXGradient(model).attribute(prompt)[0], expected, atol=1e-5, rtol=1e-4)
    halves = tw.Prompt(WordTokenizer(), PROMPTS[0], response=ANSWER, units="Dave lives in|Palm Coast")
    both = torch.stack([expected[:3].sum(), expected[3:].sum()])
    torch.testing.assert_close(tw.InputXGradient(model).attribute(halves)[0], both, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind, absent", in_turn(CAUSAL + DECODERS, ["pad", "remove"], 1))
def test_batches_of_prompts_equal_single_ones(models, kind, absent):
    model = models(kind)
    texts = ["Dave lives in Palm", "Tom", "Anna lives"]
    masks = [tw.FeatureAblation(model), tw.KernelSHAP(model, generator=0)]
    of_gradients = [tw.InputXGradient(model), tw.SmoothGrad(model, n_samples=3, generator=0)]
    for method in [*masks, *(of_gradients if kind in CAUSAL else [])]:
        found = method.explain(tw.Prompt(WordTokenizer(), texts, response=ANSWER, absent=absent)).features()
        for row, text in enumerate(texts):
            alone = method.attribute(tw.Prompt(WordTokenizer(), text, response=ANSWER, absent=absent))[0]
            torch.testing.assert_close(found[row], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", CAUSAL + DECODERS)
def test_a_response_is_generated_by_the_most_probable_tokens(models, kind):
    model = models(kind)
    ready = tw.Prompt(WordTokenizer(), PROMPTS, max_new_tokens=3).bind(model)
    for row, text in enumerate(PROMPTS):
        said: list[int] = []
        while len(said) < 3 and not {2, 3} & set(said):
            said.append(next_token(model, ids_of(text), torch.tensor([said], dtype=torch.long)))
        cut = next((k for k, i in enumerate(said) if i in (2, 3)), len(said))
        assert ready.response[row] == said[: max(cut, 1)]


def next_token(model, ids, said):
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            return int(model(input_ids=ids, decoder_input_ids=torch.cat([start, said], 1)).logits[0, -1].argmax())
        return int(model(torch.cat([ids, said], 1)).logits[0, -1].argmax())


class Plain(nn.Module):
    """A language model of no library: ids in, logits out, nothing told about padding."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, tokens):
        return self.inner(tokens).logits


def test_a_model_of_no_library(models):
    inner = models("llama")
    plain = Plain(inner).eval()
    prompt = tw.Prompt(WordTokenizer(), PROMPTS[0], max_new_tokens=3)
    assert prompt.bind(plain).response == prompt.bind(inner).response
    given = tw.Prompt(WordTokenizer(), PROMPTS[0], response=ANSWER)
    torch.testing.assert_close(tw.ExactShapley(plain).attribute(given), tw.ExactShapley(inner).attribute(given))
    torch.testing.assert_close(tw.InputXGradient(plain).attribute(given), tw.InputXGradient(inner).attribute(given))
    with pytest.raises(ValueError, match="takes no attention_mask"):
        tw.ExactShapley(plain).attribute(tw.Prompt(WordTokenizer(), ["Dave lives", "Tom"], response=ANSWER))
    with pytest.raises(ValueError, match="takes no attention_mask"):
        tw.ExactShapley(plain).attribute(tw.Prompt(WordTokenizer(), PROMPTS[0], response=ANSWER, absent="remove"))
    alone = tw.Prompt(WordTokenizer(), PROMPTS[0], response=ANSWER, absent="remove")
    found = tw.ExactShapley(plain, batch_size=1).attribute(alone)
    torch.testing.assert_close(found, tw.ExactShapley(inner).attribute(alone), atol=1e-5, rtol=1e-5)


CHAT = [{"role": "system", "content": "Be brief ."}, {"role": "user", "content": "Where does user live ? "}]


def test_markup_of_a_chat_is_never_a_unit(models):
    prompt = tw.Prompt(WordTokenizer(), CHAT, response=ANSWER)
    assert prompt.names == [["Be", "brief", ".", "Where", "does", "user", "live", "?"]]
    quiet = tw.Prompt(WordTokenizer(), CHAT, response=ANSWER, skip=["system", "Where does"])
    assert quiet.names == [["user", "live", "?"]]
    assert tw.Prompt(WordTokenizer(), CHAT, units="token", skip="system").names == [
        ["Where", "does", "user", "live", "?"]
    ]
    text = "<bos> system : Be brief . <eos> <bos> user : Where does user live ? <eos> <bos> assistant :"
    ids = ids_of(text, special=False)
    ready = quiet.bind(models("gpt2"))
    assert ready.tensors["input_ids"].tolist() == [ids[0].tolist() + ids_of(ANSWER, special=False)[0].tolist()]
    units = ready.feature_mask["input_ids"][0].tolist()
    assert [i for i, u in enumerate(units) if u >= 0] == [12, 13, 14]
    both = tw.Prompt(WordTokenizer(), [CHAT, CHAT[1:]], response=ANSWER)
    found = tw.FeatureAblation(models("gpt2")).explain(both).features()
    alone = tw.FeatureAblation(models("gpt2")).attribute(tw.Prompt(WordTokenizer(), CHAT[1:], response=ANSWER))
    torch.testing.assert_close(found[1], alone[0], atol=1e-5, rtol=1e-5)
    assert [len(f) for f in found] == [8, 5]


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_fields_of_a_template(models, kind):
    model = models(kind)
    other = {"name": ["Anna", "Tom and Dave"], "city": ["Berlin", "Madrid"]}
    prompt = tw.Prompt(
        WordTokenizer(),
        "{name} lives in {city} . {name}",
        ANSWER,
        units={"name": "Dave", "city": "Palm Coast"},
        absent=other,
    )
    e = tw.ExactShapley(model).explain(prompt)

    def value(there):
        total = 0.0
        for k in range(2):
            name = "Dave" if 0 in there else other["name"][k]
            city = "Palm Coast" if 1 in there else other["city"][k]
            total += float(log_probs(model, f"{name} lives in {city} . {name}", ANSWER).sum()) / 2
        return total

    torch.testing.assert_close(e.attributions[0], shapley(value, 2), atol=1e-5, rtol=1e-5)
    assert e.names == [["name", "city"]]
    padded = tw.Prompt(WordTokenizer(), "{name} lives in {city}", ANSWER, units={"name": "Dave", "city": "Palm Coast"})
    whole = tw.Prompt(WordTokenizer(), "Dave lives in Palm Coast", ANSWER, units="Dave|Palm Coast")
    torch.testing.assert_close(tw.ExactShapley(model).attribute(padded), tw.ExactShapley(model).attribute(whole))


def test_targets_about_the_next_token(models):
    model = models("llama")
    with torch.no_grad():
        logits = model(ids_of(PROMPTS[0])).logits[0, -1]
    golf, berlin = VOCABULARY["golf"], VOCABULARY["Berlin"]
    for response in (None, ANSWER):  # the response is not shown to them
        prompt = tw.Prompt(WordTokenizer(), PROMPTS[0], response)
        e = tw.FeatureAblation(model).explain(prompt, tw.targets.Contrast("golf", "Berlin"))
        torch.testing.assert_close(e.scores[0], logits[golf] - logits[berlin])
        e = tw.InputXGradient(model).explain(prompt, tw.targets.LogProb("golf"))
        torch.testing.assert_close(e.scores[0], logits.log_softmax(0)[golf])
        bound = prompt.bind(model)
        torch.testing.assert_close(
            tw.InputXGradient(model).attribute(bound, tw.targets.LogProb("golf")), e.attributions
        )
    e = tw.FeatureAblation(model).explain(tw.Prompt(WordTokenizer(), PROMPTS[0]), lambda out: out.logits[:, -1, golf])
    torch.testing.assert_close(e.scores[0], logits[golf])
    given = tw.Prompt(WordTokenizer(), PROMPTS[0], ANSWER)
    e = tw.FeatureAblation(model).explain(given, lambda out: out.logits[:, 5, golf])
    assert e.scores[0] == pytest.approx(float(logits[golf]), abs=1e-5)


def test_a_function_of_prompts():
    def remote(texts):
        return torch.tensor([float(len(t.split())) ** 2 for t in texts])

    e = tw.ExactShapley(remote).explain(tw.Prompt(None, "one two three", absent="remove", skip="two"))
    torch.testing.assert_close(e.attributions, torch.tensor([[4.0, 4.0]]))
    fields = {"a": "x", "b": "y z"}
    e = tw.ExactShapley(remote).explain(tw.Prompt(None, "{a} and {b}", units=fields, absent={"a": "", "b": ["", "q"]}))
    torch.testing.assert_close(e.attributions.sum(), torch.tensor(16 - (1 + 4) / 2))
    cut = tw.ExactShapley(remote).attribute(tw.Prompt(None, "{a} and {b}", units=fields, absent="remove"))
    torch.testing.assert_close(cut.sum(), torch.tensor(15.0))
    several = tw.Prompt(None, "{a} and {b}", units=fields, absent={"a": ["first", "second"], "b": "none"}).bind(remote)
    shown, _ = several.masked(torch.eye(2).flip(0) > 0, torch.tensor([0, 0]))
    assert list(shown[0]) == ["first and y z", "x and none"]  # of several the first


def test_a_prompt_is_compared(models):
    model = models("llama")
    methods = {"shap": tw.ExactShapley(model), "ixg": tw.InputXGradient(model)}
    table = tw.compare(model, tw.Prompt(WordTokenizer(), PROMPTS[0], max_new_tokens=2), None, methods, ["deletion"])
    assert table.values["deletion"]["shap"].shape == (1,)
    assert table.attributions["ixg"].shape == (1, 5)


@pytest.mark.parametrize(
    "make_it, error, words",
    [
        (lambda t: tw.Prompt(t, "Dave lives", units="golf"), ValueError, "matches nothing"),
        (lambda t: tw.Prompt(t, "Dave lives", response="xyzzy"), ValueError, "cannot be aligned"),
        (lambda t: tw.Prompt(t, "Dave lives", response=" "), ValueError, "empty"),
        (lambda t: tw.Prompt(t, "Dave lives", response=3), TypeError, "got int"),
        (lambda t: tw.Prompt(t, ["Dave lives", "Tom"], response=["a"]), ValueError, "1 given for 2 prompts"),
        (
            lambda t: tw.Prompt(t, "{name} lives", units={"city": "Berlin"}),
            ValueError,
            "'name' of the prompt has no text",
        ),
        (lambda t: tw.Prompt(t, "Dave lives", units={"city": "Berlin"}), ValueError, "no fields"),
        (
            lambda t: tw.Prompt(t, "{name} lives", units={"name": "Dave", "city": "Berlin"}),
            ValueError,
            "no field 'city'",
        ),
        (lambda t: tw.Prompt(t, "{name} lives", units={"name": "Dave"}, absent={}), ValueError, "'name' of the prompt"),
        (lambda t: tw.Prompt(t, "{} lives", units={"name": "Dave"}), ValueError, "without a name"),
        (lambda t: tw.Prompt(t, "{name lives", units={"name": "Dave"}), ValueError, "no template"),
        (lambda t: tw.Prompt(t, "{name} lives", absent={"name": ["Tom"]}), ValueError, "give their texts"),
        (
            lambda t: tw.Prompt(
                t, "{a} {b}", units={"a": "x", "b": "y"}, absent={"a": ["x", "y"], "b": ["x", "y", "z"]}
            ),
            ValueError,
            "go together",
        ),
        (lambda t: tw.Prompt(t, "Dave lives", skip="golf"), ValueError, "skip='golf'"),
        (lambda t: tw.Prompt(t, "Dave lives", skip=3), TypeError, "skip=3"),
        (lambda t: tw.Prompt(t, "Dave lives", absent="mask"), ValueError, "absent='mask'"),
        (lambda t: tw.Prompt(t, [{"role": "user"}]), TypeError, "a role and a content"),
        (lambda t: tw.Prompt(t, [{"role": "user", "content": ["x"]}]), TypeError, "content of a message is a text"),
        (lambda t: tw.Prompt(t, "Dave lives", max_new_tokens=0), ValueError, "max_new_tokens=0"),
        (lambda t: tw.ExactShapley(len).attribute(tw.Prompt(t, CHAT, absent="remove")), ValueError, "no|not chats"),
        (lambda t: tw.ExactShapley(len).attribute(tw.Prompt(t, "Dave")), ValueError, "give absent='remove'"),
        (
            lambda t: tw.ExactShapley(make("gpt2")).attribute(tw.Prompt(None, "Dave", ANSWER)),
            TypeError,
            "the tokenizer",
        ),
        (
            lambda t: tw.IntegratedGradients(make("gpt2")).attribute(tw.Prompt(t, "Dave", ANSWER, absent="remove")),
            ValueError,
            "give absent='pad'",
        ),
        (lambda t: tw.Saliency(make("bert")).attribute(tw.Prompt(t, "Dave", ANSWER)), ValueError, "needs logits"),
        (lambda t: tw.Saliency(make("bert")).attribute(tw.Text(t, "Dave"), "each"), ValueError, "has no response"),
    ],
)
def test_nonsense_in_a_prompt_is_refused(make_it, error, words):
    with pytest.raises(error, match=words):
        make_it(WordTokenizer())


def test_a_template_that_changes_what_is_said_is_refused():
    tokenizer = WordTokenizer()
    tokenizer.apply_chat_template = lambda messages, **_: " ".join(m["content"].upper() for m in messages)
    with pytest.raises(ValueError, match="leaves out or moves"):
        tw.Prompt(tokenizer, CHAT)
    tokenizer.apply_chat_template = lambda messages, **_: " ".join(m["content"].replace("Be", "be") for m in messages)
    with pytest.raises(ValueError, match="changes the message 'Be brief"):
        tw.Prompt(tokenizer, CHAT)
