"""The report of a batch: a section for each row, its numbers, what to beware of, one file without scripts."""

import re

import pytest
import torch

import torchwhy as tw
from torchwhy.models import shapes, shapes_resnet

W = torch.tensor([1.5, -2.0, 3.0, 0.5, -4.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def linear(x):
    return x @ W


def explained(n=3):
    x = torch.ones(n, 10) * torch.arange(1, n + 1)[:, None]
    return tw.FeatureAblation(linear).explain(x, names=list("abcdefghij"))


def sections(html):
    return re.findall(r"<section id=row-\d+>.*?</section>", html, re.S)


def test_each_row_has_a_section_with_its_numbers(tmp_path):
    path = tw.report(explained(), tmp_path / "report.html", rows=["Ann", "Bob", "Cem"])
    html = path.read_text()
    found = sections(html)
    assert [re.search("<h2>(.*?)</h2>", s)[1] for s in found] == ["Ann", "Bob", "Cem"]
    for i, section in enumerate(found):
        bars = re.findall(r"<th>(.*?)</th><td class=number>(.*?)</td>.*?width:([\d.]+)%", section)
        assert [name for name, _, _ in bars] == ["e", "c", "b", "a", "d", "j", "i", "h", "sum of 2 others"]
        values = {name: float(v) for name, v, _ in bars}
        assert values["e"] == pytest.approx(-4 * (i + 1))
        assert values["sum of 2 others"] == pytest.approx(0.3 * (i + 1), rel=0.01)
        assert [float(share) for _, _, share in bars[:3]] == pytest.approx([100, 75, 50])
        assert f"score {float(W.sum()) * (i + 1):.4g}" in section
    assert html.count("<a href='#row-") == 3


def test_the_page_is_whole_and_runs_nothing(tmp_path):
    hostile = ["</style><script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "@ROWS@"]
    e = explained().with_names([f"<b>{c}" for c in "abcdefghij"])
    html = tw.report(e, tmp_path / "r.html", title="<script>", rows=hostile, notes=[hostile] * 3).read_text()
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>a" not in html
    assert len(sections(html)) == 3
    assert html.count("@ROWS@") == 2 + 3  # in its line and its heading, and in the notes of each row


def test_photos_lie_under_their_maps(tmp_path):
    data = shapes(2)
    e = tw.Saliency(shapes_resnet()).explain(data.images, "predicted")
    found = sections(tw.report({"one": e, "two": e}, tmp_path / "r.html").read_text())
    for section in found:
        assert section.count("alt='attributions over the image'") == 2  # of two methods
        assert section.count("<figcaption>") == 2
        assert "full colour ±" in section
    assert re.search("src='(.*?)'", found[0])[1] != re.search("src='(.*?)'", found[1])[1]


def test_texts_stand_in_their_order(tmp_path):
    e = explained(1)
    e.inputs = None
    e.names = [list("zyxwvutsrq")]
    html = tw.report(e, tmp_path / "r.html").read_text()
    words = re.findall(r"rgba\((.*?),([\d.]+)\)' title='(.*?)'>(.)</span>", html)
    assert "".join(word for *_, word in words) == "zyxwvutsrq"
    assert [float(v) for _, _, v, _ in words] == pytest.approx(W.tolist(), rel=0.01)
    assert float(words[4][1]) == pytest.approx(0.7)
    assert words[4][0] != words[0][0]  # against, and for


def test_joined_batches_say_when_the_first_and_the_last_were_explained(tmp_path):
    parts = [explained(1) for _ in range(3)]
    for i, part in enumerate(parts):
        part.provenance |= {"date": f"2026-01-0{i + 1}T08:00:00+00:00", "seed": i}
    html = tw.report(tw.concat(parts), tmp_path / "r.html").read_text()
    assert "date 2026-01-01T08:00:00+00:00 to 2026-01-03T08:00:00+00:00" in html
    assert "seed 0 and 2 more" in html
    assert "[" not in re.search("<small>(.*?)</small>", html)[1]


def test_what_was_measured_is_in_the_table_and_in_the_sections(tmp_path):
    e = explained()
    html = tw.report(e, tmp_path / "r.html", model=linear, metrics=["complexity"]).read_text()
    expected = tw.compare(linear, e.inputs, e.target, {"m": e}, ["complexity"]).values["complexity"]["m"]
    for section, value in zip(sections(html), expected.tolist()):
        assert f"<dt>complexity</dt><dd>{value:.4g}</dd>" in section
    assert "<th>complexity ↓</th>" in html


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"completeness_gap": torch.tensor([3.0])}, "miss the change of the score by 3"),
        ({"rounding": torch.tensor([10.0])}, "nothing is larger than the rounding of the score, 1e"),
        ({"standard_error": torch.full((1, 10), 2.5)}, "within two standard errors"),
        ({}, ""),
    ],
    ids=["gap", "rounding", "errors", "nothing"],
)
def test_what_to_beware_of(tmp_path, change, words):
    e = explained(1)
    for name, value in change.items():
        setattr(e, name, value)
    html = tw.report(e, tmp_path / "r.html").read_text()
    assert ("<ul class=beware" in html) == bool(words)
    assert words in html


def test_small_gaps_and_errors_are_not_remarked(tmp_path):
    e = explained(1)
    e.completeness_gap, e.standard_error = e.scores.abs() * 0.04, torch.full((1, 10), 1.9)
    assert "<ul class=beware" not in tw.report(e, tmp_path / "r.html").read_text()


def test_bad_input(tmp_path):
    path = tmp_path / "r.html"
    with pytest.raises(ValueError, match="none given"):
        tw.report({}, path)
    with pytest.raises(TypeError, match="expected an explanation"):
        tw.report({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="of the same rows"):
        tw.report({"a": explained(2), "b": explained(3)}, path)
    with pytest.raises(ValueError, match="rows: 1 given for 3"):
        tw.report(explained(), path, rows=["Ann"])
    with pytest.raises(ValueError, match="notes: 1 given for 3"):
        tw.report(explained(), path, notes=[[]])
    with pytest.raises(TypeError, match="give model="):
        tw.report(explained(), path, metrics=["complexity"])
    assert not path.exists()
    with pytest.raises(OSError, match="No such file"):
        tw.report(explained(), tmp_path / "none" / "r.html")
