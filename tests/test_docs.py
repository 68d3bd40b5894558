"""The README, the docs and the notebooks say what is so."""

import ast
import functools
import importlib
import json
import re
import runpy
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from sources import PACKAGE, TREES, all_nodes

import torchwhy as tw
from torchwhy.backprop.linear_layer import LinearLayer
from torchwhy.cli import methods_table, metrics_table
from torchwhy.engine import state
from torchwhy.engine.run.batching import CPU_TENSOR
from torchwhy.engine.run.runner import ModelRunner
from torchwhy.problem import Problem
from torchwhy.public_names import ROOMS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = ROOT / "docs"
BESIDE = {ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")}
BROUGHT = {DOCS / "changelog.md", DOCS / "contributing.md"}  # by the building of the site
SITE = [p for p in sorted(DOCS.rglob("*.md")) if "_build" not in p.parts and p not in BROUGHT]
PAGES = [ROOT / "README.md", *SITE]
RUN = [
    p for p in PAGES if p.parent.name not in ("migration", "reference", "benchmarks") and p.name != "gallery.md"
]  # tests/test_migration.py runs the former, tests/test_every_result.py the gallery


def name_of(page):
    """A page's name in the list of tests."""
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http", "mailto")):
            place = (page.parent / target).resolve()
            brought = place.parent == DOCS / "notebooks" or place in BESIDE  # where the site has them
            if place.parent == DOCS / "notebooks":
                place = ROOT / "examples" / place.name
            assert place.exists(), f"{page.name}: {target}"
            outside = page in SITE and not place.is_relative_to(DOCS) and place.suffix in (".md", ".ipynb")
            assert brought or not outside, f"{page.name}: {target} is no page of the site; notebooks are in notebooks/"


@pytest.mark.slow  # `make examples` runs it
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for block in blocks:  # one after the other, like the cells of a notebook
        *before, last = ast.parse(block).body
        is_shown = isinstance(last, ast.Expr)
        exec(compile(ast.Module([*before, *([] if is_shown else [last])], []), page.name, "exec"), scope)
        if is_shown:
            shown = eval(compile(ast.Expression(last.value), page.name, "eval"), scope)
            assert not isinstance(shown, Figure) or hasattr(shown, "_repr_png_"), f"the site shows no picture: {block}"
            assert not isinstance(shown, tuple) or not any(isinstance(v, Figure) for v in shown), block


@pytest.mark.parametrize("word,most", [("(tw.Attribution)", 4), ("(tw.lrp.LayerRule)", 10), ("@tw.metrics.metric", 8)])
def test_what_users_add_takes_few_lines(word, most):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "extending.md").read_text(), re.M | re.S)
    block = next(block for block in blocks if word in block)
    assert len([line for line in block.splitlines() if line.strip()]) <= most
    assert word != "(tw.lrp.LayerRule)" or "tw.lrp.EPSILON_PLUS.replace(" in block  # the rule and its composite


HEADS = {
    "tw": tw,
    "functools": functools,
    "state": state,
    "method": tw.Attribution,
    "problem": Problem,
    "layer": LinearLayer,
}


@functools.cache
def definitions():
    """What the package's files define: module-level names with their modules, and all names of functions and arguments."""
    modules, names = {}, set()
    for _, node in all_nodes():
        names |= {getattr(node, key) for key in ("name", "arg", "id", "attr") if getattr(node, key, None)}
    for file, tree in TREES.items():
        module = ".".join(("torchwhy", *Path(file).with_suffix("").parts))
        modules |= {node.name: module for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    return modules, names


def exists(dotted):
    """Whether there is ``Class.attribute``, ``module.name`` or ``problem.field``."""
    head, *rest = dotted.split(".")
    modules, _ = definitions()
    if head not in HEADS and head not in modules:
        return False
    found = HEADS[head] if head in HEADS else getattr(importlib.import_module(modules[head]), head)
    for part in rest:
        if found is Problem and part == "run":
            found = ModelRunner
        elif part in getattr(found, "__dataclass_fields__", ()):
            return True
        elif hasattr(found, part):
            found = getattr(found, part)
        else:
            return False
    return True


@pytest.mark.parametrize("page", ["architecture.md", "extending.md"])
def test_the_files_and_names_of_a_page_exist(page):
    text = re.sub(r"^```python\n.*?^```", "", (ROOT / "docs" / page).read_text(), flags=re.M | re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    files = set(re.findall(r"(?<![\w./])(?:\w+/)+(?:\w+\.\w+)?|(?<![\w./])\w+\.(?:py|md)\b", text))
    for file in files:
        assert any((folder / file).exists() for folder in (ROOT, PACKAGE, ROOT / "docs")), file
    dotted = set(re.findall(r"(?<![\w./])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", text)) - files
    for name in dotted:
        assert exists(name), name
    bare = set(re.findall(r"`(\w+)`", text)) | set(re.findall(r"(?<![\w.`])(\w+)\((?!\))", text))
    unknown = {name for name in bare if not name.isdigit()} - definitions()[1]
    assert not unknown, unknown
    assert files or page != "architecture.md"


def test_imports_go_one_way():
    families = {method.__module__.split(".")[1] for method in tw.methods().values()} | {"surrogate"}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in ("engine", "metrics", "visualize"):
            imported = set(re.findall(r"^ *from torchwhy\.(\w+)", path.read_text(), re.M))
            assert not imported & families, path


def test_every_file_of_the_engine_has_a_line():
    rows = re.findall(r"`(engine/[\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    code = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "engine").rglob("*.py")}
    assert set(rows) == {file for file in code if not file.endswith("__init__.py")}


@pytest.mark.parametrize("room", ["run", "layers", "rules", "features", "images"])
def test_the_page_at_the_door_names_every_file_of_the_room(room):
    page = ast.get_docstring(TREES[f"engine/{room}/__init__.py"])
    files = {path.stem for path in (PACKAGE / "engine" / room).glob("*.py")} - {"__init__"}
    assert not files - set(re.findall(r"``(\w+)(?:\.py)?``", page))


def test_the_table_of_state_has_every_piece():
    rows = re.findall(r"^\| (`state\..*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    names = set(re.findall(r"`state\.(\w+)`", " ".join(rows)))
    tree = TREES["engine/state.py"]
    assert names == set(re.findall(r"``(\w+)``: ", ast.get_docstring(tree))) | {"lock"}
    stored = [node for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    assert names == {
        n.id for node in stored for n in ast.walk(node) if isinstance(n, ast.Name) and type(n.ctx) is ast.Store
    }


def test_the_largest_tensor_on_a_cpu_is_as_the_pages_say():
    for page in ("architecture.md", "using.md"):
        assert f"larger than {CPU_TENSOR >> 20} MiB" in (ROOT / "docs" / page).read_text()


CALLS_OF_A_MODEL = r"functional_call|(\w+\.)*(model|module|student|wrapped|called)(\[0\])?"
OTHER_CALLS = {  # of what has such a name
    "engine/run/runner.py": "the runner itself",
    "provenance.py": "a weak reference",
    "datasets/likeness.py": "a method of its own",
    "captum/methods.py": "a method that is wrapped",
}
OF_OTHER_NAMES = {
    "engine/run/torch_errors.py",
    "engine/run/black_box.py",
    "engine/run/estimators.py",
    "captum/question.py",
}


def test_who_calls_the_model_is_written_down():
    said = re.findall(
        r"^- \*\*(?:Who else calls|What wraps) the model.*?(?=^- )",
        (ROOT / "docs" / "architecture.md").read_text(),
        re.M | re.S,
    )
    assert len(said) == 2
    calling = set()
    for file, tree in TREES.items():
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        calling |= {file for call in calls if re.fullmatch(CALLS_OF_A_MODEL, call)}
    assert set(OTHER_CALLS) < calling
    named = set(re.findall(r"`([\w/]+\.py)`", " ".join(said))) - {
        "influence/row_gradients.py"
    }  # by influence/named_tensors.py
    assert calling - set(OTHER_CALLS) == named - OF_OTHER_NAMES


def test_grad_cams_weights_are_where_the_pages_say():
    tree = TREES["cam/grad_cam.py"]
    (of_class,) = [node for node in tree.body if getattr(node, "name", "") == "GradCAM"]
    (weights,) = [node for node in of_class.body if getattr(node, "name", "") == "weights"]
    assert len([node for node in weights.body if not isinstance(node, ast.Expr)]) == 1
    assert re.search(r"^  cam/ +class activation maps$", README, re.M)


TIMED = [p for p in sorted((ROOT / "docs" / "benchmarks").glob("*.json")) if '"seconds"' in p.read_text()]


IN_ALL = ("torch", "torchvision")  # what does not stand in a script has no part in its times
IMPORTED_AS = {"pytorch_grad_cam": "grad-cam"}


@pytest.mark.parametrize("results", TIMED, ids=lambda p: p.stem)
def test_times_are_of_the_pinned_versions(results):
    pinned = [line.split("==") for line in (ROOT / "benchmarks" / "versions.txt").read_text().splitlines()[1:]]
    script = (ROOT / "benchmarks" / f"{results.stem}.py").read_text()
    imported = {IMPORTED_AS.get(name, name) for name in re.findall(r"\b(?:import|from) (\w+)", script)}
    pinned = [(name, v) for name, v in pinned if name in {*IN_ALL, *imported}]
    report = json.loads(results.read_text())
    of_gpu = {r["machine"]: r.get("device") == "cuda" for r in report.get("results", []) if "machine" in r}
    for machine, gpu in {report["machine"]: False, **of_gpu}.items():
        for name, version in pinned:  # a GPU's machine has a torch of its own, and not every peer
            own = gpu and (name in ("torch", "torchvision", "timm") or f" {name} " not in machine)
            assert own or f"{name} {version}" in machine


NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def code_of(notebook):
    """The code of each cell of a notebook."""
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_are_sound(notebook):
    text = notebook.read_text()
    found = json.loads(text)
    assert found["nbformat"] == 4
    assert len(text) < 20_000  # without outputs
    assert not any(cell.get("outputs") for cell in found["cells"])
    assert "".join(found["cells"][0]["source"]).startswith("# ")
    for source in code_of(notebook):
        compile(source, notebook.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    for needed in re.findall(r"needs: `(\w+)`", notebook.read_text()):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for source in code_of(notebook):
        exec(compile(source, notebook.name, "exec"), scope)


def test_every_method_is_in_the_docs():
    page = (ROOT / "docs" / "methods.md").read_text()
    for name in tw.methods():
        assert f"`{name}`" in page, name


@pytest.mark.parametrize("page", ["methods", "metrics", "benchmarks"])
def test_pages_are_what_is_written_from_the_code(page):
    make = runpy.run_path(str(ROOT / "docs" / "make.py"))
    assert (ROOT / "docs" / f"{page}.md").read_text() == make[f"{page}_page"](), "run docs/make.py"


def test_the_pages_of_benchmarks_are_what_is_kept():
    make = runpy.run_path(str(DOCS / "make.py"))
    written = {path.stem: path.read_text() for path in (DOCS / "benchmarks").glob("*.md")}
    assert written == make["benchmark_pages"](), "run docs/make.py"


def test_the_number_of_metrics():
    page = (ROOT / "docs" / "metrics.md").read_text()
    found = [name for name in tw.metrics.__all__ if hasattr(getattr(tw.metrics, name), "needs")]
    assert all(f"### `{name}`" in page for name in found)
    assert f"`tw.metrics` has {len(found)} " in README


@pytest.fixture(scope="module")
def reference():
    """The names and functions of docs/reference_pages.py."""
    return runpy.run_path(str(DOCS / "reference_pages.py"))


def test_the_reference_is_that_of_the_names(reference):
    written = {path.stem: path.read_text() for path in (DOCS / "reference").glob("*.md")}
    assert written == reference["pages"](), "run docs/make.py"


def test_every_public_name_has_an_entry(reference):
    text = "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    entries = set(re.findall(r"^\.\. [\w:]+:: ([\w.]+)$", text, re.M))
    assert len(entries) == len(re.findall(r"^\.\. ", text, re.M))  # each once
    rooms = [f"torchwhy.{room}" for room in ROOMS if hasattr(importlib.import_module(f"torchwhy.{room}"), "__all__")]
    for path in ["torchwhy", *rooms, *(m for m in reference["MODULES"] if ".captum." in m)]:
        module = importlib.import_module(path)
        for name in set(module.__all__) - {"__version__"}:
            value = getattr(module, name)
            top = f"torchwhy.{name}" if getattr(tw, name, None) is value else ""
            assert {f"{path}.{name}", top} & entries or type(value).__name__ == "module", f"{path}.{name}"


def test_every_page_is_in_the_contents():
    contents = (DOCS / "index.md").read_text()
    inside = (DOCS / "reference" / "index.md").read_text() + (DOCS / "benchmarks.md").read_text()
    for page in SITE:
        place = page.relative_to(DOCS).with_suffix("").as_posix()
        if place not in ("index", "reference/index"):
            listed = re.search(rf"^(?:[^<\n]+ <{place}>|{place})$", contents, re.M)  # with a title, or its heading
            assert listed or re.search(rf"^{page.stem}$|{page.name}", inside, re.M), place


def test_the_site_begins_as_the_readme_does():
    (ten,) = re.findall(r"^## Ten lines\n\n(```python\n.*?^```)", README, re.M | re.S)
    assert ten in (DOCS / "index.md").read_text()
    start = (DOCS / "start.md").read_text()
    first = [re.findall(r"^pip install (\S+)", page, re.M)[0] for page in (README, start)]
    assert first == ["torchwhy", "torchwhy"]


def test_every_notebook_is_in_the_contents():
    shown = re.findall(r"^notebooks/(\w+)$", (DOCS / "index.md").read_text(), re.M)
    assert sorted(shown) == sorted(path.stem for path in NOTEBOOKS)


def test_the_gallery_has_every_picture():
    code = "".join(re.findall(r"^```python\n(.*?)^```", (DOCS / "gallery.md").read_text(), re.M | re.S))
    missing = {name for name in tw.visualize.__all__ if f"visualize.{name}(" not in code}
    assert not missing, missing


@pytest.mark.parametrize("page", sorted((DOCS / "families").glob("*.md")), ids=name_of)
def test_the_defaults_that_a_page_names(page):
    for line in page.read_text().splitlines():
        methods = re.findall(r"\[`(\w+)`\]", line.split("|")[1]) if line.startswith("| [") else []
        for setting, value in re.findall(r"`(\w+)=([^`]+)`", line) if methods else []:
            for method in methods:
                assert getattr(tw.methods()[method], setting) == ast.literal_eval(value), (method, setting)
    assert "## Look at" in page.read_text()


def test_what_the_pages_of_families_list_is_all_there_is():
    text = "".join(path.read_text() for path in (DOCS / "families").glob("*.md"))
    missing = [name for name in tw.methods() if f"`{name}`" not in text]
    assert not missing, missing
