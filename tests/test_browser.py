"""The pages in a real browser: clicks, sliders, tabs, keys, hostile names, and no request that leaves the page."""

import shutil

import pytest
import torch

import torchwhy as tw
from torchwhy import visualize as v

pytestmark = pytest.mark.browser
HOSTILE = ["</script><script>window.hacked=1</script>", "\"'><img src=x onerror=window.hacked=1>", "<!--", "a" * 10_000]
W = torch.tensor([1.0, -2.0, 3.0, -4.0])


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium")
    with api.sync_playwright() as player:
        opened = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def look(browser):
    """Open a file; fail on errors of its script, on dialogs, and on any request but for the file itself."""
    seen = []
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else seen.append(r.url))
    page.on("pageerror", lambda e: seen.append(str(e)))
    page.on("console", lambda m: seen.append(m.text) if m.type == "error" else None)

    def opened(path):
        page.goto(path.as_uri())
        return page

    yield opened
    page.close()
    assert not seen


def explained(names=None):
    method = tw.ExactShapley(lambda x: x @ W)
    return method.explain(torch.tensor([[1.0], [2.0]]) * torch.ones(2, 4), names=names or list("abcd"))


def rows(page):
    return [tuple(r.locator("td").all_inner_texts()[:2]) for r in page.locator("tbody tr").all()]


def names(page):
    return [name.strip() for name, _ in rows(page)]


def test_controls_choose_what_is_shown(look, tmp_path):
    page = look(explained().to_html(tmp_path / "why.html"))
    assert names(page) == ["d", "c", "b", "a"]
    page.get_by_label("sign").select_option("positive")
    assert names(page) == ["c", "a"]
    page.get_by_label("sign").select_option("all")
    slider = page.get_by_label("at least")
    slider.fill("0.6")
    assert names(page) == ["d", "c"]
    slider.focus()
    page.keyboard.press("End")
    assert names(page) == ["d"]
    page.keyboard.press("Home")
    page.locator("#row").select_option("1")
    assert rows(page)[0][1] == "−8"
    page.get_by_role("button", name="feature").click()
    assert names(page) == list("abcd")
    page.get_by_role("button", name="attribution").press("Enter")
    assert names(page) == ["c", "a", "b", "d"]


def test_tabs_are_reached_by_keys_and_say_which_is_chosen(look, tmp_path):
    page = look(v.page({"one": explained(), "two": explained(list("wxyz"))}, tmp_path / "why.html"))
    page.get_by_role("tab", name="one").focus()
    page.keyboard.press("ArrowRight")
    assert names(page) == ["z", "y", "x", "w"]
    assert page.get_by_role("tab", selected=True).inner_text() == "two"
    assert page.evaluate("document.activeElement.textContent") == "two"
    page.get_by_role("tab", name="one").click()
    assert names(page) == ["d", "c", "b", "a"]


def test_the_waterfall_has_the_lengths_of_the_attributions(look, tmp_path):
    page = look(explained().to_html(tmp_path / "why.html"))

    def widths():
        return [bar.bounding_box()["width"] for bar in page.locator("td.bar rect").all()]

    bars = widths()
    page.get_by_label("draw").select_option("waterfall")
    falls = widths()
    for found in (bars, falls):
        assert [w / found[0] for w in found] == pytest.approx([1, 0.75, 0.5, 0.25], abs=0.02)


def test_what_if(look, tmp_path):
    page = look(explained().to_html(tmp_path / "why.html"))
    page.get_by_label("without d").check()
    page.get_by_label("without c").press("Space")
    assert page.locator("#what-if").inner_text() == "Without c, d: f = −1, which is +1 (evaluated)."
    page.get_by_label("without d").uncheck()
    assert page.locator("#what-if").inner_text().startswith("Without c: f = −5")


def test_tokens_of_the_response_recolour_the_prompt(look, tmp_path):
    a = torch.tensor([[[1.0, 0.0, -2.0], [0.0, 3.0, 0.0]]])
    e = tw.Explanation(
        attributions=a, names=[["the", "red", "car"]], details={"response": [["It", "is"]]}, method="any"
    )
    page = look(e.to_html(tmp_path / "why.html"))

    def colours():
        return [s.evaluate("n => getComputedStyle(n).backgroundColor") for s in page.locator(".text span").all()]

    first = colours()
    page.get_by_role("button", name="is").click()
    second = colours()
    assert first == ["rgb(244, 163, 149)", "rgb(255, 255, 255)", "rgb(47, 123, 224)"]
    assert second == ["rgb(255, 255, 255)", "rgb(232, 71, 43)", "rgb(255, 255, 255)"]
    assert page.get_by_role("button", name="is").get_attribute("aria-pressed") == "true"
    page.locator(".text span").nth(1).hover()
    assert page.locator("tr.on td").first.inner_text() == "red"


def test_images_have_an_opacity_and_zoom(look, tmp_path):
    x = torch.rand(1, 3, 6, 9)
    e = tw.Saliency(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(162, 2))).explain(x, 1)
    page = look(e.to_html(tmp_path / "why.html"))
    before = page.locator(".image img").first.bounding_box()["width"]
    page.get_by_label("zoom").fill("6")
    page.get_by_label("opacity").fill("0.25")
    images = page.locator(".image img")
    assert images.first.bounding_box()["width"] == 2 * before
    assert images.nth(1).evaluate("n => getComputedStyle(n).opacity") == "0.25"
    assert images.nth(1).evaluate("n => n.complete && n.naturalWidth") == 9


def test_hostile_names_are_text(look, tmp_path):
    page = look(explained(HOSTILE).to_html(tmp_path / "why.html", title=HOSTILE[0]))
    assert sorted(names(page)) == sorted(HOSTILE)
    assert page.title() == HOSTILE[0]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    path = tw.report(explained(HOSTILE), tmp_path / "report.html", rows=HOSTILE[:2], notes=[HOSTILE, []])
    page = look(path)
    assert page.locator("h2").all_inner_texts() == HOSTILE[:2]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_report_prints(look, tmp_path):
    page = look(tw.report(explained(), tmp_path / "report.html", rows=["Ann", "Bob"]))
    page.get_by_role("link", name="Bob").click()
    assert page.url.endswith("#row-1")
    assert page.pdf()[:5] == b"%PDF-"
