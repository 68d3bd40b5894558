"""The README, the docs and the notebooks say what is so."""

import json
import re
import runpy
from pathlib import Path

import pytest

import torchwhy as tw
from torchwhy.cli import methods_table, metrics_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_table_of_methods_is_that_of_the_classes():
    assert methods_table() in README, "write the output of `torchwhy methods` into the README"


LINES = methods_table().splitlines()[2:] + metrics_table().splitlines()[2:]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("`")[1])
def test_the_table_says_whole_sentences(line):
    what, paper = (line.split(" | ")[i].strip(" |") for i in (1, -1))
    cut = {"a", "an", "and", "as", "by", "from", "in", "of", "that", "the", "through", "to", "where", "with"}
    assert ":`" not in what, what  # no roles
    assert what.split()[-1] not in cut, what
    assert not paper or paper.startswith(("[arXiv:", "[doi:")), paper


def test_the_quick_start_is_two_commands():
    block = re.search(r"^## Quick start$.*?^```\w*\n(.*?)^```", README, re.M | re.S)
    assert block is not None
    assert len(block.group(1).strip().splitlines()) == 2


def test_the_map_shows_every_folder_and_nothing_else():
    block = re.search(r"^## Where things live$.*?^```\n(.*?)^```", README, re.M | re.S)
    assert block is not None
    shown = set()
    for line in block.group(1).splitlines():
        place = line.split()[0]
        shown.add(f"src/torchwhy/{place}" if line.startswith("  ") else place)
    assert all((ROOT / place).exists() for place in shown), shown
    package = ROOT / "src" / "torchwhy"
    code = {path.parent.relative_to(ROOT).as_posix() + "/" for path in package.rglob("*/*.py")}
    assert {place for place in shown if place.endswith("/")} >= code - {"src/torchwhy/engine/"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for block in blocks:  # one after the other, like the cells of a notebook
        exec(compile(block, page.name, "exec"), scope)


TIMED = [p for p in sorted((ROOT / "docs" / "benchmarks").glob("*.json")) if '"seconds"' in p.read_text()]


@pytest.mark.parametrize("results", TIMED, ids=lambda p: p.stem)
def test_times_are_of_the_pinned_versions(results):
    pinned = [line.split("==") for line in (ROOT / "benchmarks" / "versions.txt").read_text().splitlines()[1:]]
    report = json.loads(results.read_text())
    of_gpu = {r["machine"]: r.get("device") == "cuda" for r in report.get("results", []) if "machine" in r}
    for machine, gpu in {report["machine"]: False, **of_gpu}.items():
        for name, version in pinned:  # a GPU's machine has a torch of its own, and not every peer
            own = gpu and (name in ("torch", "torchvision", "timm") or f" {name} " not in machine)
            assert own or f"{name} {version}" in machine


@pytest.mark.parametrize("notebook", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda p: p.name)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), notebook.name, "exec"), scope)


def test_every_method_is_in_the_docs():
    page = (ROOT / "docs" / "methods.md").read_text()
    for name in tw.methods():
        assert f"`{name}`" in page, name


@pytest.mark.parametrize("page", ["methods", "metrics", "benchmarks"])
def test_pages_are_what_is_written_from_the_code(page):
    make = runpy.run_path(str(ROOT / "docs" / "make.py"))
    assert (ROOT / "docs" / f"{page}.md").read_text() == make[f"{page}_page"](), "run docs/make.py"


def test_the_number_of_metrics():
    page = (ROOT / "docs" / "metrics.md").read_text()
    found = [name for name in tw.metrics.__all__ if hasattr(getattr(tw.metrics, name), "needs")]
    assert all(f"### `{name}`" in page for name in found)
    assert f"`tw.metrics` has {len(found)} " in README
