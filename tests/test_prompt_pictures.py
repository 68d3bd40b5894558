"""Pictures inside prompts: their units, chats, several of them, what is drawn, what is refused."""

import multimodal
import numpy as np
import pytest
import torch
from test_samples import shapley

import torchwhy as tw

IMAGE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
OTHER = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def llava():
    return multimodal.make("llava"), multimodal.processor("llava")


@pytest.fixture(scope="module")
def qwen():
    return multimodal.make("qwen2_vl"), multimodal.processor("qwen2_vl")


def test_units_of_a_picture():
    assert tw.PromptPicture(IMAGE, units=2).units[::8, ::8].tolist() == [[0, 1], [2, 3]]
    mask = torch.full((16, 16), -1)
    mask[:4], mask[8:, 8:] = 7, 3
    some = tw.PromptPicture(IMAGE, units=mask)
    assert some.names == ["[3]", "[7]"]
    assert some.units[[0, 5, 15], [0, 0, 15]].tolist() == [1, -1, 0]
    region = tw.PromptPicture(IMAGE, units=mask >= 0)
    assert region.units.unique().tolist() == [-1, 0]
    pieces = tw.PromptPicture(IMAGE, units=lambda x: tw.superpixels(x, 4))
    assert len(pieces.names) == len(tw.superpixels(IMAGE[None], 4).unique())
    from PIL import Image

    as_bytes = (IMAGE.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    for given in (as_bytes, Image.fromarray(as_bytes), torch.from_numpy(as_bytes)):
        assert tw.PromptPicture(given).image.equal(tw.PromptPicture(IMAGE).image)


def test_units_lie_where_the_processor_puts_them(llava):
    wide = torch.zeros(3, 16, 32)  # the middle half is what is left
    prompt = tw.Prompt(llava[1], "<image> what", "a", pictures=tw.PromptPicture(wide, units=4), units=None)
    assert prompt.names == [[f"picture[{row}, {column}]" for row in range(4) for column in (1, 2)]]
    number = prompt.bind(llava[0]).feature_mask["pixel_values"]
    assert number[0, 0, ::4, ::8].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    many = torch.arange(256).view(16, 16) + 200  # numbers of more than one byte
    fine = tw.Prompt(llava[1], "<image> what", "a", pictures=tw.PromptPicture(IMAGE, units=many), units=None)
    assert fine.bind(llava[0]).feature_mask["pixel_values"][0, 2].equal(many - 200)


def test_units_of_patches_behind_one_another(qwen):
    prompt = tw.Prompt(qwen[1], "<vs> <image> <ve> what", "a", pictures=tw.PromptPicture(IMAGE, units=4), units=None)
    ready = prompt.bind(qwen[0])
    assert ready.tensors["pixel_values"].shape == (1, 16, 96)
    of_patches = ready.feature_mask["pixel_values"][0]
    assert bool((of_patches == of_patches[:, :1]).all())
    assert of_patches[:, 0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]  # two by two
    seen, _ = ready.masked(torch.ones(3, 16, dtype=torch.bool), torch.tensor([0, 0, 0]))
    assert seen["pixel_values"].shape == (48, 96)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_several_pictures_in_a_prompt(kind):
    model, processor = multimodal.make(kind), multimodal.processor(kind)
    mark = "<vs> <image> <ve>" if kind == "qwen2_vl" else "<image>"
    texts = [f"{mark} and {mark} ?", f"what is {mark}"]
    shown = [
        [tw.PromptPicture(IMAGE, 1, OTHER), tw.PromptPicture(OTHER, 1, IMAGE)],
        [tw.PromptPicture(OTHER, 1, IMAGE)],
    ]
    e = tw.ExactShapley(model).explain(tw.Prompt(processor, texts, "a", pictures=shown, units=None))
    assert e.names == [["picture 0[0, 0]", "picture 1[0, 0]"], ["picture[0, 0]"]]
    arrays = [(i * 255).round().to(torch.uint8).permute(1, 2, 0).numpy() for i in (IMAGE, OTHER)]

    def value(there):
        images = [arrays[0 if 0 in there else 1], arrays[1 if 1 in there else 0]]
        made = dict(processor(text=[texts[0]], images=images, return_tensors="pt"))
        with torch.no_grad():
            return float(model(**made).logits[0, -1].log_softmax(0)[7])

    torch.testing.assert_close(e.features()[0], shapley(value, 2), atol=1e-5, rtol=1e-5)
    alone = tw.ExactShapley(model).attribute(tw.Prompt(processor, texts[1], "a", pictures=shown[1], units=None))
    torch.testing.assert_close(e.features()[1], alone[0], atol=1e-5, rtol=1e-5)
    ig = tw.IntegratedGradients(model, tolerance=1e-3).explain(tw.Prompt(processor, texts, "a", pictures=shown))
    assert float((ig.completeness_gap / (ig.scores - ig.base_scores).abs()).max()) < 1.1e-3


def test_a_chat_with_pictures(llava):
    model, processor = llava
    parts = [{"type": "image", "image": IMAGE}, {"type": "text", "text": "what is this"}]
    chat = [{"role": "user", "content": parts}]
    prompt = tw.Prompt(processor, chat, "a cat")
    assert prompt.names[0][:4] == ["what", "is", "this", "picture[0, 0]"]
    text = "<s> user : <image> what is this </s> <s> assistant :"
    plain = tw.Prompt(processor, text, "a cat", pictures=IMAGE, skip=["user :", "assistant :"])
    torch.testing.assert_close(tw.FeatureAblation(model).attribute(prompt), tw.FeatureAblation(model).attribute(plain))
    without = [{"role": "user", "content": [{"type": "image"}, parts[1]]}]
    given = tw.Prompt(processor, without, "a cat", pictures=IMAGE)
    torch.testing.assert_close(tw.FeatureAblation(model).attribute(given), tw.FeatureAblation(model).attribute(prompt))


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_a_response_to_a_picture_is_generated(kind):
    model, processor = multimodal.make(kind), multimodal.processor(kind)
    mark = "<vs> <image> <ve>" if kind == "qwen2_vl" else "<image>"
    ready = tw.Prompt(processor, f"{mark} what is", pictures=IMAGE, max_new_tokens=3).bind(model)
    image = (IMAGE * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    made = dict(processor(text=[f"{mark} what is"], images=[image], return_tensors="pt"))
    said: list[int] = []
    while len(said) < 3 and not {2, 3} & set(said):
        with torch.no_grad():
            said.append(int(model(**made).logits[0, -1].argmax()))
        more = {"input_ids": said[-1], "attention_mask": 1, "mm_token_type_ids": 0}
        made = {k: torch.cat([v, torch.full((1, 1), more[k])], 1) if k in more else v for k, v in made.items()}
    end = next((k for k, i in enumerate(said) if i in (2, 3)), len(said))
    assert ready.response == [said[: max(end, 1)]]


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_fields_of_a_template_beside_a_picture(kind):
    model, processor = multimodal.make(kind), multimodal.processor(kind)
    mark = "<vs> <image> <ve>" if kind == "qwen2_vl" else "<image>"
    shown, fields = tw.PromptPicture(IMAGE, 1, OTHER), {"what": "a cat"}
    prompt = tw.Prompt(
        processor, mark + " is {what} ?", "on", units=fields, absent={"what": "this on the mat"}, pictures=shown
    )
    e = tw.ExactShapley(model).explain(prompt)
    assert e.names == [["what", "picture[0, 0]"]]
    arrays = [(i * 255).round().to(torch.uint8).permute(1, 2, 0).numpy() for i in (OTHER, IMAGE)]

    def value(there):
        text = f"{mark} is {'a cat' if 0 in there else 'this on the mat'} ?"
        made = dict(processor(text=[text], images=[arrays[1 in there]], return_tensors="pt"))
        with torch.no_grad():
            return float(model(**made).logits[0, -1].log_softmax(0)[10])

    torch.testing.assert_close(e.attributions[0], shapley(value, 2), atol=1e-5, rtol=1e-5)


def test_a_prompt_with_pictures_is_drawn_kept_and_compared(llava, tmp_path):
    model, processor = llava
    shown = [tw.PromptPicture(IMAGE, 2), tw.PromptPicture(torch.cat([OTHER, IMAGE], 2), 2)]
    prompt = tw.Prompt(processor, ["<image> what is", "this <image>"], "a cat", pictures=shown)
    e = tw.FeatureAblation(model).explain(prompt)
    for row, words in enumerate(["what is", "this"]):
        written, picture = e.plot(row=row).axes[:2]
        assert [t.get_text() for t in written.texts] == words.split()
        assert picture.images[0].get_array().shape[:2] == (16, 16 * (row + 1))
    text_only = tw.FeatureAblation(model).explain(tw.Prompt(processor, "<image> what", "a", pictures=IMAGE, units=None))
    assert len(text_only.plot().axes) == 2  # the picture and the colours
    e.save(tmp_path / "e.safetensors")
    loaded = tw.Explanation.load(tmp_path / "e.safetensors")
    assert loaded.details["picture_units"].equal(e.details["picture_units"])
    assert e[1].details["pictures"].shape == (1, 1, 3, 16, 32)
    assert len(tw.concat([e[0], e[1]])) == 2
    table = tw.compare(model, prompt, None, {"ablation": tw.FeatureAblation(model)}, ["deletion"])
    assert table.values["deletion"]["ablation"].shape == (2,)
    each = tw.FeatureAblation(model).explain(prompt, target="each")
    assert each.attributions.shape == (2, 2, 6)
    assert each.plot().axes


@pytest.mark.parametrize(
    "make_it, error, words",
    [
        (lambda p: tw.Prompt(p, "what is", "a", pictures=IMAGE), ValueError, "'<image>', which marks a picture, 0 times"),
        (lambda p: tw.Prompt(p, "<image> <image>", "a", pictures=IMAGE), ValueError, "1 given.* 2 times"),
        (lambda p: tw.Prompt(p, ["<image>", "<image>"], "a", pictures=IMAGE), ValueError, "for each of 2 prompts"),
        (lambda p: tw.Prompt(p.tokenizer, "<image>", "a", pictures=IMAGE), TypeError, "give the model's processor"),
        (lambda p: tw.Prompt(p, "what", "a", units=None), ValueError, "no pictures; there is nothing to explain"),
        (lambda p: tw.Prompt(p, "<image> what", "a", pictures=3), TypeError, "got int"),
        (lambda p: tw.LIME(len).attribute(tw.Prompt(p, "<image>", pictures=IMAGE, units=None)), ValueError, "is a module"),
        (lambda p: tw.PromptPicture(IMAGE[:2]), ValueError, r"shape \(2, 16, 16\)"),
        (lambda p: tw.PromptPicture(IMAGE * 3), ValueError, "expected 0 to 1"),
        (lambda p: tw.PromptPicture(IMAGE, units=0), ValueError, "grid=0"),
        (lambda p: tw.PromptPicture(IMAGE, units="word"), TypeError, "got str"),
        (lambda p: tw.PromptPicture(IMAGE, units=torch.zeros(8, 8).long()), ValueError, "for a picture of 16 × 16"),
        (lambda p: tw.PromptPicture(IMAGE, units=torch.zeros(16, 16)), TypeError, "whole numbers"),
        (lambda p: tw.PromptPicture(IMAGE, units=torch.full((16, 16), -1)), ValueError, "no pixel"),
        (lambda p: tw.PromptPicture(IMAGE, absent=IMAGE[:, :8]), ValueError, "absent: a picture of 8 × 16"),
        (lambda p: tw.Prompt(p, [{"role": "user", "content": [{"type": "video"}]}]), TypeError, "'text' or 'image'"),
    ],
)  # fmt: skip
def test_nonsense_about_pictures_is_refused(llava, make_it, error, words):
    with pytest.raises(error, match=words):
        make_it(llava[1])
