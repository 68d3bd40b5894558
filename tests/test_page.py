"""The page of explanations: one file, no network, no markup but ours; its script is run on a small document."""

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

import torchwhy as tw
from torchwhy import visualize as v

HOSTILE = ["</script><script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "<!--", "a" * 10_000, "&lt;\u2028"]
W = torch.tensor([1.0, -2.0, 3.0, 0.5, -4.0])

# as much of a document as the page asks for
DOM = r"""
class Node {
  constructor(tag) {
    Object.assign(this, {tag, children: [], attributes: {}, events: {}, classes: new Set(), tabIndex: 0, textContent: ""});
    this.classList = {toggle: (c, on) => on ? this.classes.add(c) : this.classes.delete(c)}; }
  setAttribute(k, value) { this.attributes[k] = String(value); }
  addEventListener(k, f) { this.events[k] = f; }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  focus() { document.activeElement = this; }
  get id() { return this.attributes.id || ""; }
  all() { return this.children.flatMap(c => c instanceof Node ? [c, ...c.all()] : []); }
  get text() { return this.children.map(c => c instanceof Node ? c.text : c).join(""); }
}
const root = new Node("body"), main = new Node("main"), tabs = new Node("div"), data = new Node("script");
data.textContent = require("fs").readFileSync(0, "utf8"); root.append(tabs, main);
globalThis.document = {
  activeElement: root, createElementNS: (ns, tag) => new Node(tag),
  getElementById: id => id === "data" ? data : root.all().find(n => n.id === id),
  querySelector: q => q === "main" ? main : tabs,
  querySelectorAll: q => root.all().filter(n => q === "[role=tab]" ? n.attributes.role === "tab"
    : q === `[data-feature="${n.attributes["data-feature"]}"]`),
};
const bodies = () => main.all().filter(n => n.tag === "tbody");
const rows = () => bodies().flatMap(b => b.children.map(tr => [tr.children[0].text.trim(), tr.children[1].text]));
const fire = (id, event, value) => document.getElementById(id).events[event]({target: {value}, key: value});
"""


def explained():
    return tw.FeatureAblation(lambda x: x @ W).explain(torch.ones(2, 5) * torch.tensor([[1.0], [2.0]]), names=HOSTILE)


def parts(path):
    html = path.read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1]
    script = re.search(r"<script>\n(.*?)</script>", html, re.S)[1]
    return html, data, script


def run(path, actions):
    """Run the page's script, then actions, and return what they log."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    _, data, script = parts(path)
    code = DOM + script.replace('"use strict";', "") + actions
    done = subprocess.run([node, "-e", code], input=data, capture_output=True, text=True, timeout=60)
    assert not done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_file_is_whole_and_asks_nobody(tmp_path):
    path = explained().to_html(tmp_path / "why.html", title="<b>why</b>")
    html, data, _ = parts(path)
    assert "default-src 'none'" in html
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//)|url\(|@import|fetch\(|XMLHttpRequest""", html)
    assert html.count("<script") == 2  # the data and ours
    assert "<b>why" not in html
    assert "onerror=alert" not in html.replace(data, "")
    assert "<" not in data
    assert json.loads(data)[0]["rows"][0]["names"] == HOSTILE
    assert len(html) < 200_000


def test_the_numbers_are_the_explanations(tmp_path):
    e = explained()
    (method,) = json.loads(parts(e.to_html(tmp_path / "why.html"))[1])
    for i, row in enumerate(method["rows"]):
        assert row["values"] == pytest.approx((W * (i + 1)).tolist())
        assert (row["score"], row["base"]) == (float(e.scores[i]), float(e.base_scores[i]))
        assert row["title"] == f"row {i} of 2"


def test_features_are_sorted_filtered_and_shown_by_row(tmp_path):
    e = explained().with_names(list("abcde"))
    path = e.to_html(tmp_path / "why.html")
    first, against, large, second, byname = run(
        path,
        """
        const log = () => console.log(JSON.stringify(rows()));
        log();
        fire("sign", "change", "negative"); log();
        fire("sign", "change", "all"); fire("least", "input", "0.5"); log();
        fire("least", "input", "0"); fire("row", "change", "1"); log();
        main.all().find(n => n.tag === "th").children[0].events.click(); log();
        """,
    )
    assert first == [["e", "−4"], ["c", "+3"], ["b", "−2"], ["a", "+1"], ["d", "+0.5"]]
    assert against == [["e", "−4"], ["b", "−2"]]
    assert large == [["e", "−4"], ["c", "+3"], ["b", "−2"]]
    assert second == [["e", "−8"], ["c", "+6"], ["b", "−4"], ["a", "+2"], ["d", "+1"]]
    assert [name for name, _ in byname] == list("abcde")


def test_methods_are_tabs_that_keys_reach(tmp_path):
    e, double = explained().with_names(list("abcde")), explained().with_names(list("vwxyz"))
    path = v.page({"one": e, "two": double}, tmp_path / "why.html")
    before, after, chosen, back = run(
        path,
        """
        console.log(JSON.stringify(rows()[0][0]));
        fire("tab-0", "keydown", "ArrowRight"); console.log(JSON.stringify(rows()[0][0]));
        console.log(JSON.stringify(tabs.children.map(t => t.attributes["aria-selected"])));
        fire("tab-0", "click"); console.log(JSON.stringify(rows()[0][0]));
        """,
    )
    assert (before, after, back) == ("e", "z", "e")
    assert chosen == ["false", "true"]


def test_texts_are_coloured_in_their_order(tmp_path):
    words = ["not", "a", "bad", "film"]
    e = tw.Explanation(attributions=torch.tensor([[1.0, 0.0, -2.0, 0.5]]), names=[words], inputs=None, method="any")
    shown, few = run(
        e.to_html(tmp_path / "why.html"),
        """
        const spans = () => main.all().filter(n => n.tag === "span").map(n => [n.text, n.attributes.style]);
        console.log(JSON.stringify(spans()));
        fire("least", "input", "0.9"); console.log(JSON.stringify(spans()));
        """,
    )
    assert [word for word, _ in shown] == words
    assert shown[2][1] == "background:rgb(47,123,224)"
    assert shown[1][1] == "background:rgb(255,255,255)"
    assert [style == "background:#fff" for _, style in few] == [True, True, False, True]


def test_images_lie_over_their_photo(tmp_path):
    x = torch.rand(2, 3, 6, 9)
    e = tw.Saliency(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(162, 2))).explain(x, 1)
    (method,) = json.loads(parts(e.to_html(tmp_path / "why.html"))[1])
    assert (method["rows"][1]["width"], method["rows"][1]["height"]) == (9, 6)
    drawn, clear = run(
        tmp_path / "why.html",
        """
        const all = () => main.all().filter(n => n.tag === "img");
        const images = () => all().map(n => [n.attributes.src.slice(0, 15), n.attributes.style || ""]);
        console.log(JSON.stringify(images()));
        fire("opacity", "input", "0.1"); console.log(JSON.stringify(images()));
        """,
    )
    assert drawn == [["data:image/png;", ""], ["data:image/png;", "opacity:0.8"]]
    assert clear[1][1] == "opacity:0.1"


def test_pages_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="none given"):
        v.page({}, tmp_path / "a.html")
    with pytest.raises(TypeError, match=r"explanations\['a'\]: expected an explanation, .* not Tensor"):
        v.page({"a": torch.ones(1, 2)}, tmp_path / "a.html")
    with pytest.raises(OSError, match="nowhere"):
        explained().to_html(tmp_path / "nowhere" / "a.html")


def test_each_token_of_a_response_is_chosen_by_itself(tmp_path):
    a = torch.arange(6.0).view(1, 2, 3)
    e = tw.Explanation(attributions=a, names=[["the", "red", "car"]], scores=torch.tensor([[1.5, 2.5]]), method="any")
    first, second = run(
        e.to_html(tmp_path / "why.html"),
        """
        console.log(JSON.stringify(rows()));
        fire("row", "change", "1"); console.log(JSON.stringify(rows()));
        """,
    )
    assert first == [["car", "+2"], ["red", "+1"], ["the", "0"]]
    assert second == [["car", "+5"], ["red", "+4"], ["the", "+3"]]
    (method,) = json.loads(parts(tmp_path / "why.html")[1])
    assert [row["score"] for row in method["rows"]] == [1.5, 2.5]


def game(x):
    return x[:, 0] * 2 + x[:, 1] * x[:, 2] - x[:, 3]


@pytest.mark.parametrize(
    ("method", "all_known"),
    [
        (tw.ExactShapley(game), True),
        (tw.KernelSHAP(game), True),
        (tw.KernelSHAP(game, n_samples=12, generator=0), False),
        (tw.LIME(game, n_samples=12, generator=0), False),
    ],
    ids=["exact", "kernel, all", "kernel, some", "LIME"],
)
def test_what_was_evaluated_is_known(method, all_known):
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.5, 1.0, 1.5, 2.0]])
    e = method.explain(x)
    kept, scores = e.details["coalitions"], e.details["coalition_scores"]
    assert (kept.shape[1] == 16) == all_known
    assert len({tuple(z) for z in kept[0].tolist()}) == kept.shape[1]
    torch.testing.assert_close(scores, torch.stack([game(row * kept[0]) for row in x]).to(scores))
    torch.testing.assert_close(e[1].details["coalition_scores"], scores[1:])
    assert "coalitions" not in tw.KernelSHAP(lambda x: x.sum(1)).explain(torch.rand(1, 65)).details


def test_what_if_is_answered_from_what_was_evaluated(tmp_path):
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    exact = tw.ExactShapley(game).explain(x, names=list("abcd"))
    some = tw.KernelSHAP(game, n_samples=10, generator=0).explain(x, names=list("abcd"))
    lost = next(
        [i for i, there in enumerate(z) if not there]
        for z in tw.ExactShapley(game).explain(x).details["coalitions"][0].tolist()
        if z not in some.details["coalitions"][0].tolist()
    )
    ticks = "".join(f'fire("without-{i}", "change"); ' for i in lost)
    code = """
        const tick = i => { document.getElementById("without-" + i).events.change({target: {checked: true}}); };
        const said = () => console.log(JSON.stringify(document.getElementById("what-if").text));
        said(); tick(0); said(); tick(2); said();
        state.without = new Set(); fire("tab-1", "click"); TICKS said();
        """.replace("TICKS", ticks.replace('fire("without-', "tick(").replace('", "change")', ")"))
    none, one, two, unknown = run(v.page({"exact": exact, "some": some}, tmp_path / "why.html"), code)
    assert none.startswith("What if?")
    assert one == "Without a: f = +2, which is −2 (evaluated)."
    assert two == "Without a, c: f = −4, which is −8 (evaluated)."
    assert unknown.endswith("not among what was evaluated.")


def test_an_ablation_answers_for_single_features(tmp_path):
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    code = """
        const tick = i => { document.getElementById("without-" + i).events.change({target: {checked: true}}); };
        const said = () => console.log(JSON.stringify(document.getElementById("what-if").text));
        tick(2); said(); tick(0); said();
        """
    one, two = run(tw.FeatureAblation(game).explain(x, names=list("abcd")).to_html(tmp_path / "why.html"), code)
    without = float(game(x * torch.tensor([1.0, 1.0, 0.0, 1.0])))
    lost = without - float(game(x))
    number = "{:+g}".format
    assert one == f"Without c: f = {number(without)}, which is {number(lost)} (evaluated).".replace("-", "−")
    assert two.endswith("not among what was evaluated.")


def test_tokens_of_a_response_are_clicked(tmp_path):
    a = torch.arange(6.0).view(1, 2, 3)
    e = tw.Explanation(
        attributions=a, names=[["the", "red", "car"]], details={"response": [["It", "is"]]}, method="any"
    )
    first, pressed, second = run(
        e.to_html(tmp_path / "why.html"),
        """
        console.log(JSON.stringify(rows()));
        document.getElementById("token-1").events.click();
        console.log(JSON.stringify(main.all().filter(n => n.tag === "button" && n.attributes["aria-pressed"])
          .map(n => [n.text, n.attributes["aria-pressed"]])));
        console.log(JSON.stringify(rows()));
        """,
    )
    assert first == [["car", "+2"], ["red", "+1"], ["the", "0"]]
    assert pressed == [["It", "false"], ["is", "true"]]
    assert second == [["car", "+5"], ["red", "+4"], ["the", "+3"]]


def test_the_waterfall_goes_from_the_baseline_to_the_score(tmp_path):
    e = tw.ExactShapley(game).explain(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), baselines=0.5)
    (bars,) = run(
        e.to_html(tmp_path / "why.html"),
        """
        fire("view", "change", "waterfall");
        console.log(JSON.stringify(main.all().filter(n => n.tag === "rect").map(n => [n.attributes.x, n.attributes.width])));
        """,
    )
    values = e.features()[0]
    at = float(e.base_scores[0])
    for (x, width), value in zip(bars, values[values.abs().argsort(descending=True, stable=True)].tolist()):
        assert float(width) == pytest.approx(abs(value), rel=1e-4)
        assert float(x) == pytest.approx(min(at, at + value), abs=1e-4)
        at += value
    assert at == pytest.approx(float(e.scores[0]), abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_photo_below_the_map_is_the_row(channels, tmp_path):
    x = torch.rand(2, channels, 6, 9)
    e = tw.Saliency(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(54 * channels, 2))).explain(x, 1)
    shown = json.loads(parts(e.to_html(tmp_path / "why.html"))[1])[0]["rows"]
    for row, given in zip(shown, x):
        with Image.open(io.BytesIO(base64.b64decode(row["photo"].split(",")[1]))) as image:
            pixels = torch.tensor(np.asarray(image.convert("RGB"))).permute(2, 0, 1) / 255
        torch.testing.assert_close(pixels, given.expand(3, 6, 9), rtol=0, atol=0.01)
