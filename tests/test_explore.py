"""The page of a running model: what it asks for, what it refuses, and the page itself in a browser."""

import json
import re
import shutil

import pytest
import torch
from language import VOCABULARY, WordTokenizer

import torchwhy as tw
from torchwhy.app import Explorer, explore
from torchwhy.app.page import in_frame

W = torch.tensor([[1.0, -2.0, 3.0], [0.0, 1.0, 0.0]])
ROWS = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]])


def model(x):
    return x @ W.T


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = torch.nn.Embedding(len(VOCABULARY), 8), torch.nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        kept = self.embedding(input_ids).tanh() * attention_mask[..., None]
        return self.head(kept.sum(1) / attention_mask.sum(1, keepdim=True))


def table(**more):
    given = {"methods": {"exact": tw.ExactShapley(model)}, "target": 0, "names": ["a", "b", "<c>"], **more}
    return Explorer(model, ROWS, **given)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_a_changed_row_is_explained_anew():
    found = table(classes=["no", "yes"])
    (method,) = data_of(found.explained(0, [1, "2.0", 3], "exact"))
    assert method["rows"][0]["values"] == pytest.approx([1, -4, 9])
    assert method["rows"][0]["names"] == ["a", "b", "<c>"]
    page = found.explained(0, [0, 2, 3], "exact")
    assert data_of(page)[0]["rows"][0]["values"] == pytest.approx([0, -4, 9])
    assert "<h1>no, f = 5</h1>" in page
    assert torch.equal(ROWS[0], torch.tensor([1.0, 2.0, 3.0]))


def test_images_are_covered_by_their_mean():
    x = torch.rand(2, 3, 8, 10)
    found = Explorer(lambda x: x.mean((2, 3)), x, {"ablation": tw.FeatureAblation(lambda x: x.mean((2, 3)))})
    covered = found.changed(1, (0.5, 0, 1, 0.25))
    changed = torch.zeros(1, 3, 8, 10, dtype=torch.bool)
    changed[..., :2, 5:] = True
    assert torch.equal(covered[~changed], x[1:][~changed])
    torch.testing.assert_close(covered[..., 0, 9], x[1:].mean((2, 3)))
    assert torch.equal(found.changed(1, None), x[1:])
    assert torch.equal(found.changed(1, (0.5, 0.5, 0.5, 0.5)), x[1:])


def test_texts_are_written_anew():
    net, tokenizer = Encoder(), WordTokenizer()
    sample = tw.Text(tokenizer, ["great film", "a dull film"], absent="pad")
    found = Explorer(net, sample, {"shapley": tw.ExactShapley(net)}, target=1)
    assert found.row(1) == "a dull film"
    (method,) = data_of(found.explained(1, "a great film", "shapley"))
    expected = tw.ExactShapley(net).explain(tw.Text(tokenizer, "a great film", absent="pad"), 1)
    assert method["rows"][0]["names"] == ["a", "great", "film"]
    assert method["rows"][0]["values"] == pytest.approx(expected.attributions[0].tolist(), rel=1e-4)


def test_counterfactuals_are_told_by_what_changes():
    net = torch.nn.Linear(3, 2)
    net.load_state_dict({"weight": W, "bias": torch.zeros(2)})
    found = Explorer(net, ROWS, {"ig": tw.IntegratedGradients(net)}, names=["a", "b", "c"])
    said = found.counterfactuals(0, [1.0, 2.0, 3.0])
    change = re.findall(r"<td>(\w)</td><td>(.*?)</td><td>(.*?)</td>", said)
    assert change
    after = dict(zip("abc", [1.0, 2.0, 3.0])) | {name: float(v) for name, _, v in change}
    scores = model(torch.tensor([[*after.values()]]))[0]
    assert scores[1] > scores[0] - 0.01
    assert "No row" in Explorer(
        net, ROWS, {"ig": tw.IntegratedGradients(net)}, counterfactual=tw.Counterfactual(net, bounds=(1, 3), n_steps=1)
    ).counterfactuals(0, [1.0, 1.0, 3.0])


def test_concepts_say_along_which_the_target_rises():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Identity())
    net.load_state_dict({"0.weight": W, "0.bias": torch.zeros(2)})
    steps = 0.1 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    concepts = {"first": steps + torch.tensor([1.0, 0.0, 0.0]), "second": steps - torch.tensor([1.0, 0.0, 0.0])}
    tcav = tw.TCAV(net, layer="1").fit(concepts)
    found = Explorer(net, ROWS, {"ig": tw.IntegratedGradients(net)}, target=0, concepts=tcav)
    said = found.concept_derivatives(0, [0, 0, 0])
    lines = re.findall(r"<td>(\w+)</td><td>1</td><td>(.*?)</td><td>(.*?)</td>", said)
    values = tcav.attribute(torch.zeros(1, 3), 0)[0].tolist()
    assert values[0] > 0.9
    assert lines == [("first", f"{values[0]:+.4g}", "1.00"), ("second", f"{values[1]:+.4g}", "1.00")]
    both = tw.TCAV(net, layer=["0", "1"]).fit(concepts)
    said = Explorer(net, ROWS, {"ig": tw.IntegratedGradients(net)}, 0, concepts=both).concept_derivatives(1, [1, 2, 3])
    assert re.findall(r"<td>(\w+)</td><td>([01])</td>", said) == [
        ("first", "0"), ("second", "0"), ("first", "1"), ("second", "1")
    ]  # fmt: skip
    with pytest.raises(ValueError, match="concepts: none given"):
        table().concept_derivatives(0, [1, 2, 3])
    with pytest.raises(ValueError, match="no vectors yet"):
        table(concepts=tw.TCAV(net, layer="1"))


@pytest.mark.parametrize(
    ("row", "change", "method", "words"),
    [
        (2, [1, 2, 3], "exact", "row: 2 is none of 0 to 1"),
        (0.5, [1, 2, 3], "exact", "row: 0.5 is none"),
        ("../x", [1, 2, 3], "exact", "row: '../x' is none"),
        (True, [1, 2, 3], "exact", "row: True is none"),
        (0, [1, 2], "exact", "values: 2 given for 3 columns"),
        (0, None, "exact", "values: 0 given"),
        (0, [1, "x" * 99, 3], "exact", "b: '" + "x" * 40 + "' is no number"),
        (0, [1, "inf", 3], "exact", "b: inf is out of range"),
        (0, [1, "nan", 3], "exact", "b: nan is out of range"),
        (0, [1, -2e9, 3], "exact", "out of range"),
        (0, [1, 2, 3], "os", "method: 'os' is none of exact"),
    ],
)
def test_what_no_page_sends_is_refused(row, change, method, words):
    with pytest.raises((ValueError, LookupError), match=re.escape(words)):
        table().explained(row, change, method)


def test_texts_and_rectangles_are_limited():
    net = Encoder()
    found = Explorer(net, tw.Text(WordTokenizer(), "a film"), {"shapley": tw.ExactShapley(net)})
    for text in ("", "  ", "a " * 1001):
        with pytest.raises(ValueError, match="between 1 and 2000 characters"):
            found.changed(0, text)
    with pytest.raises(ValueError, match="tables only"):
        found.counterfactuals(0, "a film")
    images = Explorer(model, torch.rand(1, 3, 4, 4), {"a": tw.Saliency(model)})
    for change in ((0, 1), (0, 0, "x", 1), 3):
        with pytest.raises(ValueError, match="four numbers"):
            images.changed(0, change)


def test_data_of_another_kind_is_refused():
    for data in (torch.rand(3), torch.rand(2, 5, 4, 4), [[1.0]], torch.rand(0, 3)):
        with pytest.raises(TypeError, match="data: expected a table"):
            Explorer(model, data, {"a": tw.Saliency(model)})
    with pytest.raises(ValueError, match="methods: none"):
        table(methods={})
    with pytest.raises(ValueError, match="names: 1 given for 3 columns"):
        table(names=["a"])


def test_warnings_of_the_method_are_on_the_page():
    net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Tanh())
    ig = tw.IntegratedGradients(net, n_steps=1, tolerance=1e-12, max_steps=4)
    found = Explorer(net, ROWS, {"ig": ig}, target=0)
    assert "<p class='note'>" in found.explained(0, [9.0, 9.0, 9.0], "ig")


def test_the_frame_is_apart():
    frame = in_frame('<p title="x">\'</p>')
    assert 'sandbox="allow-scripts"' in frame
    assert "<p" not in frame


@pytest.mark.browser
def test_the_page_in_a_browser():
    pytest.importorskip("gradio")
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium")
    app = explore(model, ROWS, [tw.ExactShapley(model)], target=0, names=["a", "b", "<c>"], launch=False)
    asked = []
    try:
        _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
        with api.sync_playwright() as player:
            browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else asked.append(r.url))
            page.goto(url)
            inside = page.frame_locator("iframe")
            inside.locator("tbody tr").first.wait_for()
            assert inside.locator("tbody tr td:nth-child(2)").all_inner_texts() == ["+9", "−4", "+1"]
            page.get_by_label("b", exact=True).fill("0")
            page.get_by_role("button", name="Explain").click()
            inside.get_by_text("f = 10").first.wait_for()
            assert inside.locator("tbody tr td:nth-child(2)").all_inner_texts() == ["+9", "+1", "0"]
            page.get_by_label("b", exact=True).fill("../../etc/passwd")
            page.get_by_role("button", name="Explain").click()
            page.get_by_text("is no number").wait_for()
            assert page.request.get(f"{url}gradio_api/file=/etc/passwd").status in (403, 404)
            browser.close()
    finally:
        app.close()
    assert not [u for u in asked if "127.0.0.1" not in u]
