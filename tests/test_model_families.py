"""One table of models of text, pictures, speech and video; what must hold of all of them, one property a test."""

from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import multimodal
import pytest
import torch
from cases import in_turn
from language import VOCABULARY, WordTokenizer, ids_of, make
from test_samples import shapley
from torch import nn

import torchwhy as tw

GOLF = VOCABULARY["golf"]  # an ordinary token: the embedding of padding may be zero, where norms have a kink


@dataclass(frozen=True)
class Family:
    """A model with two rows of different numbers of units, and what it gives for inputs made by hand.

    ``sample(rows, absent)`` is what is explained; ``scores(row, there, absent)`` are the scores of all targets when only the
    units ``there`` are.
    """

    model: nn.Module
    sample: object
    scores: object
    count: tuple
    targets: list
    smooth: object = "replaced"  # the absence that methods of gradients go from


PROMPTS, ANSWER = ["Dave lives in Palm", "Tom lives"], "a lawyer"
ABOUT_NEXT = [tw.targets.LogProb("golf"), tw.targets.Contrast("golf", "Berlin"), tw.targets.Entropy()]


def prompts(kind):
    """A language model: what is explained is the response, and three targets about the token that comes next."""
    model = make(kind)

    def sample(rows, absent):
        return tw.Prompt(WordTokenizer(), [PROMPTS[row] for row in rows], ANSWER, absent=absent)

    def scores(row, there, absent):
        token = {"pad": "<pad>", GOLF: "golf"}.get(absent)
        words = PROMPTS[row].split()
        ids = ids_of(" ".join(w if i in there else token for i, w in enumerate(words) if i in there or token))
        answer = ids_of(ANSWER, special=False)
        with torch.no_grad():
            if model.config.is_encoder_decoder:
                start = torch.tensor([[model.config.decoder_start_token_id]])
                logits = model(input_ids=ids, decoder_input_ids=torch.cat([start, answer[:, :-1]], 1)).logits
                after = logits
            else:
                logits = model(torch.cat([ids, answer], 1)).logits
                after = logits[:, ids.shape[1] - 1 : -1]
        each = after.log_softmax(2).gather(2, answer[..., None])[0, :, 0]
        last = after[0, 0].log_softmax(0)
        berlin = VOCABULARY["Berlin"]
        return [each.sum(), last[GOLF], last[GOLF] - last[berlin], -(last.exp() * last).sum()]

    counts = tuple(len(text.split()) for text in PROMPTS)
    return Family(model, sample, scores, counts, [None, *ABOUT_NEXT], GOLF)


def texts():
    """An encoder."""
    model, tokenizer = make("bert"), WordTokenizer(ends=True)

    def sample(rows, absent):
        return tw.Text(tokenizer, [PROMPTS[row] for row in rows], absent=absent)

    def scores(row, there, absent):
        token = {"mask": "<mask>", "pad": "<pad>", GOLF: "golf"}.get(absent)
        words = PROMPTS[row].split()
        shown = " ".join(w if i in there else token for i, w in enumerate(words) if i in there or token)
        with torch.no_grad():
            return list(model(ids_of(shown, ends=True)).logits[0])

    return Family(model, sample, scores, (4, 2), [0, 1, 2], GOLF)


IDS = torch.tensor([[1, 7, 9, 12, 3], [1, 20, 21, 22, 3]])
WORDS = torch.tensor([[-1, 0, 1, 2, -1], [-1, 0, 0, 0, -1]])  # two words that are three tokens make one unit
QUARTERS = torch.arange(4).view(2, 2).repeat_interleave(8, 0).repeat_interleave(8, 1)
HALVES = QUARTERS % 2  # fewer units, where there are others beside them: by hand the model runs for each subset


def tensors(kind, tensors, masks, baselines, targets, read, arguments=None):
    """A model whose inputs are tensors: a sample of them, and the same worked by hand."""
    model, arguments = multimodal.make(kind), arguments or {}
    counts = tuple(int(max(m[row].max() for m in masks.values())) + 1 for row in range(2))

    def of_rows(values, rows):
        return {k: v[rows] for k, v in values.items()}

    def sample(rows, absent):
        given = of_rows(arguments, rows)
        return tw.Sample(of_rows(tensors, rows), of_rows(masks, rows), baselines=baselines, arguments=given)

    def scores(row, there, absent):
        shown = {}
        for k, t in tensors.items():
            gone = torch.tensor([int(u) >= 0 and int(u) not in there for u in masks[k][row].flatten()])
            shown[k] = torch.where(gone.view(masks[k][row].shape).expand(t[row].shape), baselines[k], t[row])[None]
        with torch.no_grad():
            return list(read(model(**shown, **of_rows(arguments, [row]))))

    return Family(model, sample, scores, counts, targets)


def picture_and_words(x):
    """The units of rows of words, and of the halves of a picture behind them."""
    behind = torch.stack([HALVES + int(row.max()) + 1 for row in WORDS])[:, None]
    return {"input_ids": WORDS, "pixel_values": behind.expand(-1, 1, *x.shape[2:])}


def clip():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    toward = torch.randn(8, generator=torch.Generator().manual_seed(2))

    def pair(out):
        return (out.image_embeds * out.text_embeds).sum(1)

    def read(out):
        return [pair(out)[0], torch.cosine_similarity(out.text_embeds, toward[None])[0]]

    targets = [pair, tw.targets.Similarity(toward, "text_embeds")]
    given = {"input_ids": IDS, "pixel_values": x}
    return tensors("clip", given, picture_and_words(x), {"input_ids": 30, "pixel_values": 0.5}, targets, read)


def vilt():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    given, baselines = {"input_ids": IDS, "pixel_values": x}, {"input_ids": 30, "pixel_values": 0.5}
    return tensors("vilt", given, picture_and_words(x), baselines, [0, 1, 2], lambda out: out.logits[0])


def whisper():
    sound = torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(1))
    said = torch.tensor([[1, 7, 9], [1, 8, 4]])
    masks = {"input_features": torch.stack([torch.arange(24) // 6, (torch.arange(24) // 6).clamp(max=2)])[:, None]}

    def read(out):
        last = out.logits[0, -1].log_softmax(0)
        return [last[7], last[5] - last[6]]

    targets = [tw.targets.LogProb(7), tw.targets.Contrast(5, 6)]
    given = {"decoder_input_ids": said}
    return tensors("whisper", {"input_features": sound}, masks, {"input_features": 0.0}, targets, read, given)


def videomae():
    video = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    halves = (torch.arange(4) // 2).view(4, 1, 1, 1) * 2 + HALVES  # two frames of a half of the picture
    masks = {"pixel_values": torch.stack([halves, halves.clamp(max=2)])}
    return tensors(
        "videomae", {"pixel_values": video}, masks, {"pixel_values": 0.5}, [0, 2], lambda out: out.logits[0, [0, 2]]
    )


def detr():
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    quarters = QUARTERS.repeat_interleave(2, 0).repeat_interleave(2, 1)
    masks = {"pixel_values": torch.stack([quarters, quarters.clamp(max=2)])[:, None]}
    targets, found = [(1, 2), (0, 3)], ([1, 0], [2, 3])
    return tensors("detr", {"pixel_values": x}, masks, {"pixel_values": 0.5}, targets, lambda out: out.logits[0][found])


SEEN = [torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(k)) for k in (1, 2)]
SEEN_WIDE = [SEEN[0], torch.cat(SEEN, 2)]  # of different sizes, where a processor keeps them
BLACK = torch.zeros(3, 16, 32)


def pictures(kind):
    """A model of text and pictures: the response is explained by the words and by quarters, or halves, of the picture.

    By hand what is absent is painted over before the processor sees the picture.
    """
    model, processor = multimodal.make(kind), multimodal.processor(kind)
    texts = ["<image> what is", "cat <image>"]
    if kind == "qwen2_vl":
        texts = [text.replace("<image>", "<vs> <image> <ve>") for text in texts]
    images = SEEN_WIDE if kind == "qwen2_vl" else SEEN
    marks, answer = {"<image>", "<vs>", "<ve>"}, "a dog"
    halves = [torch.arange(i.shape[2]).mul(2).div(i.shape[2]).long().expand(16, -1) for i in images]

    def sample(rows, absent):
        shown = [tw.PromptPicture(images[r], halves[r], absent=BLACK[:, :, : images[r].shape[2]]) for r in rows]
        return tw.Prompt(processor, [texts[r] for r in rows], answer, absent=absent, pictures=shown)

    def scores(row, there, absent):
        words, token, k, shown = texts[row].split(), {"pad": "<pad>", 13: "."}.get(absent), 0, []
        for word in words:
            if word not in marks:
                word, k = (word if k in there else token), k + 1
            shown += [word] if word else []
        painted = torch.where(torch.isin(halves[row], torch.tensor([i - k for i in there])), images[row], 0.0)
        image = (painted * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        made = processor(text=[" ".join(shown)], images=[image], return_tensors="pt")
        said = torch.tensor([processor.tokenizer(answer)["input_ids"]])
        both = {**made, "input_ids": torch.cat([made["input_ids"], said], 1)}
        both["attention_mask"] = torch.ones_like(both["input_ids"])
        if "mm_token_type_ids" in made:
            both["mm_token_type_ids"] = (both["input_ids"] == multimodal.IMAGE).long()
        with torch.no_grad():
            after = model(**both).logits[0, -3:-1].log_softmax(1)
        return [after.gather(1, said[0, :, None]).sum(), after[0, 8]]

    counts = tuple(len([w for w in text.split() if w not in marks]) + 2 for text in texts)
    return Family(model, sample, scores, counts, [None, tw.targets.LogProb("cat")], 13)


FAMILIES = {kind: (lambda kind=kind: prompts(kind)) for kind in ("gpt2", "llama", "qwen2", "t5", "bart")}
FAMILIES |= {kind: (lambda kind=kind: pictures(kind)) for kind in ("llava", "qwen2_vl")}
FAMILIES |= {"bert": texts, "clip": clip, "vilt": vilt, "whisper": whisper, "videomae": videomae, "detr": detr}
PROMPTED = ("gpt2", "llama", "qwen2", "t5", "bart", "llava", "qwen2_vl")


@cache
def family(name):
    return FAMILIES[name]()


ABSENCES = [*in_turn(PROMPTED, ("pad", "remove", "token"), 1), *in_turn(["bert"], ("mask", "pad", "remove"), 1)]
ABSENCES += [(n, "replaced") for n in FAMILIES if n not in (*PROMPTED, "bert")]


@pytest.mark.parametrize("name, absent", ABSENCES)
def test_shapley_values_are_those_of_inputs_made_by_hand(name, absent):
    f = family(name)
    absent = f.smooth if absent == "token" else absent
    found = tw.ExactShapley(f.model, batch_size=7).explain_each(f.sample([0, 1], absent), f.targets)
    for row in range(2):
        known = {}

        def scores(there, row=row, known=known):
            key = frozenset(there)
            if key not in known:
                known[key] = [float(s) for s in f.scores(row, there, absent)]
            return known[key]

        for t, e in enumerate(found):
            expected = shapley(lambda there, t=t: scores(there)[t], f.count[row])
            torch.testing.assert_close(e.features()[row], expected, atol=1e-5, rtol=1e-5)
            assert float(e.scores[row]) == pytest.approx(scores(set(range(f.count[row])))[t], abs=1e-5)


ALIKE = {"qwen2": "llama", "t5": "bart"}  # gradients of the one go through what those of the other go through


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in ALIKE else ()) for n in FAMILIES])
def test_integrated_gradients_are_as_complete_as_asked(name):
    f = family(name)
    e = tw.IntegratedGradients(f.model, tolerance=1e-3).explain(f.sample([0, 1], f.smooth), f.targets[0])
    check_sums(f, e, 1e-3, relative=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_deeplift_adds_up(name):
    f = family(name)
    check_sums(f, tw.DeepLIFT(f.model).explain(f.sample([0, 1], f.smooth), f.targets[0]), 1e-4)


def check_sums(f, e, bound, relative=False):
    for row in range(2):
        full, none = (float(f.scores(row, there, f.smooth)[0]) for there in (set(range(f.count[row])), set()))
        allowed = bound * (max(abs(full - none), 1e-2) if relative else 1.0)
        assert float(e.attributions[row].sum()) == pytest.approx(full - none, abs=allowed + 2e-6)
        assert float(e.completeness_gap[row]) < allowed + 2e-6


METHODS = {
    "KernelSHAP": lambda m: tw.KernelSHAP(m, n_samples=20, generator=0),
    "LIME": lambda m: tw.LIME(m, n_samples=20, generator=0),
    "FeatureAblation": lambda m: tw.FeatureAblation(m),
    "ShapleySampling": lambda m: tw.ShapleySampling(m, n_samples=4, generator=0),
    "IntegratedGradients": lambda m: tw.IntegratedGradients(m, n_steps=4),
    "InputXGradient": lambda m: tw.InputXGradient(m),
}
MASKING = ("KernelSHAP", "LIME", "FeatureAblation", "ShapleySampling")


def exact(model):
    """A copy in float64, whatever it is given: in float32 scores differ by the rounding of batches of other sizes."""

    def in_float64(module, args, kwargs):
        floats = {k: v for k, v in kwargs.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
        return args, kwargs | {k: v.double() for k, v in floats.items()}

    copied = deepcopy(model).double()
    copied.register_forward_pre_hook(in_float64, with_kwargs=True)
    return copied


@pytest.mark.filterwarnings("ignore:the target does not depend")  # one of CLIP's is about the text alone
@pytest.mark.parametrize("name, method", in_turn(FAMILIES, METHODS, 1))
def test_several_targets_equal_a_loop_and_cost_one_run(name, method):
    f = family(name)
    made, sample = METHODS[method](exact(f.model)), f.sample([0, 1], f.smooth)
    together = made.explain_each(sample, f.targets)
    alone = [made.explain(sample, target) for target in f.targets]
    for a, b in zip(together, alone):
        torch.testing.assert_close(a.attributions, b.attributions, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(a.scores, b.scores, atol=1e-6, rtol=1e-6)
    shared = together[1:] if name in PROMPTED else together  # the response is behind the prompt for the first one
    assert len({e.evaluations for e in shared}) == 1
    if method in MASKING:
        assert together[-1].evaluations == alone[-1].evaluations


def check_rows_alone(name, method, absent):
    f = family(name)
    made = METHODS[method](f.model)
    together = made.explain(f.sample([0, 1], absent), f.targets[0])
    for row in range(2):
        alone = made.explain(f.sample([row], absent), f.targets[0])
        torch.testing.assert_close(together.features()[row], alone.features()[0], atol=1e-5, rtol=1e-4)
        assert together.names[row] == alone.names[0]


@pytest.mark.parametrize("name, method", in_turn(FAMILIES, METHODS, 1))
def test_rows_of_different_lengths_equal_rows_alone(name, method):
    check_rows_alone(name, method, family(name).smooth)


@pytest.mark.parametrize("name, method", in_turn((*PROMPTED, "bert"), MASKING, 1))
def test_shortened_rows_of_different_lengths_equal_rows_alone(name, method):
    check_rows_alone(name, method, "remove")
