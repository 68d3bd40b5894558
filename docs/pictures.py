"""Draw the pictures that the demo's photos cannot show: attention, counterfactuals, tables, results, metrics.

``python docs/pictures.py [NAME ...]``; three minutes for all but ``circuits``, which takes SmolLM2 and some minutes more.
"""

from __future__ import annotations

import ast
import io
import re
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

import torchwhy as tw
from torchwhy.models import SHAPES, breast_cancer, digits, shapes, shapes_resnet, shapes_vit
from torchwhy.visualize import cohorts, grid, heatmap, slices, text, to_png

PICTURES = Path(__file__).resolve().parent / "pictures"


def attention() -> None:
    """Draw the attention methods on images whose evidence is known, by the small vision transformer."""
    model, data = shapes_vit(), shapes(3, seed=1)
    kinds = (tw.RawAttention, tw.AttentionRollout, tw.AttentionFlow, tw.ALTI, tw.AttentionRelevance)
    maps = {kind.__name__: kind(model).attribute(data.images, data.labels) for kind in kinds}
    names = [SHAPES[k] for k in data.labels.tolist()]
    grid(maps, images=list(data.images), titles=names).savefig(PICTURES / "attention.png", dpi=110, bbox_inches="tight")


def counterfactuals() -> None:
    """Draw digits, the nearest images that the network takes for another, and the change between them."""
    data = digits()
    x = data.x_test[[0, 1, 2, 4]]
    was = data.model(x).argmax(1)
    found = tw.Counterfactual(data.model, bounds=(x.min(), x.max())).generate(x)
    now = data.model(found.counterfactuals).argmax(1)
    maps = {"digit": x, "counterfactual": found.counterfactuals, "change": found.counterfactuals - x}
    names = {
        "digit": [f"taken for {k}" for k in was.tolist()],
        "counterfactual": [f"taken for {k}" for k in now.tolist()],
        "change": [f"length {d:.2f}" for d in found.distance.tolist()],
    }
    figure = grid(maps, captions=names, shared_scale=False, panel=1.4)
    figure.savefig(PICTURES / "counterfactual.png", dpi=110, bbox_inches="tight")


def visualizations() -> None:
    """Make an image for each class of the small network, and a photo that is changed to excite a layer."""
    from torchvision.utils import save_image

    model = shapes_resnet()
    made = tw.FeatureVisualization(model, size=(64, 64), n_steps=200).generate(list(range(len(SHAPES)))).images
    photo = shapes(1).images
    dreamt = tw.DeepDream(model, layer="layer2").generate(photo)
    big = torch.nn.functional.interpolate(torch.cat([made, photo, dreamt]), scale_factor=2)
    save_image(big, PICTURES / "visualization.png", nrow=8)


def metrics() -> None:
    """Draw methods and metrics on images whose evidence is known."""
    example = runpy.run_path(str(PICTURES.parent.parent / "examples" / "compare.py"))
    example["table"]().plot().savefig(PICTURES / "metrics.png", dpi=110)


def sheet(figures: Sequence[Figure], name: str, columns: int = 2, width: int = 760) -> None:
    """Write several figures below and beside one another, each as wide as a column."""
    pictures = [Image.open(io.BytesIO(to_png(figure, dpi=150))).convert("RGB") for figure in figures]
    pictures = [p.resize((width, round(p.height * width / p.width)), Image.Resampling.LANCZOS) for p in pictures]
    lines = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    whole = Image.new("RGB", (width * columns, sum(max(p.height for p in line) + 16 for line in lines)), "white")
    top = 0
    for line in lines:
        for i, p in enumerate(line):
            whole.paste(p, (i * width, top))
        top += max(p.height for p in line) + 16
    whole.save(PICTURES / name, optimize=True)


def tables() -> None:
    """Draw every picture of tabular rows: a network that tells tumours apart, explained by Shapley values."""
    data = breast_cancer()
    background = tw.Distribution(data.x_train[:20])
    method = tw.KernelSHAP(data.model, n_samples=400, generator=0)
    e = method.explain(data.x_test[:60], 0, baselines=background, names=list(data.features)).with_names(
        classes=data.classes
    )
    benign = data.y_test[:60] == 1
    drawn = [
        e.plot(kind="waterfall", row=4, top=6),
        e.plot(row=4, top=6),
        e.plot(kind="force", row=4, top=5),
        e.plot(kind="decision", top=6),
        e.plot(kind="beeswarm", top=6),
        cohorts({"malignant": e[~benign], "benign": e[benign]}, top=6, title="cohorts"),
        e.plot(kind="heatmap", top=6),
        e.plot(kind="scatter", color="auto"),
    ]
    sheet(drawn, "tables.png")


def ways() -> None:
    """Draw the ways to show a map with its image, slices of a volume, and a text."""
    model, data = shapes_resnet(), shapes(1, seed=3)
    label = int(data.labels[0])
    e = tw.IntegratedGradients(model, n_steps=32).explain(data.images, label)
    smooth = torch.nn.functional.avg_pool2d(e.maps, 5, 1, 2)[0]
    ways = [("blend", "grey"), ("blend", "colour"), ("contour", "colour"), ("mask", "colour"), ("alpha", "colour")]
    drawn = [
        heatmap(
            smooth,
            image=data.images[0],
            style=style,
            photo=photo,
            title=f"style={style!r}, photo={photo!r}",
            label="logit",
        )
        for style, photo in ways
    ]
    place = torch.linspace(-1, 1, 24)
    ball = (torch.cartesian_prod(place[:12], place, place) ** 2).sum(1).view(12, 24, 24)
    drawn.append(
        slices(torch.exp(-4 * ball) - 0.3 * torch.exp(-4 * (ball - 1) ** 2), at=range(0, 12, 2), max_columns=3)
    )
    words = "the film was not as bad as i had fear ##ed , and the end is a joy".split()  # noqa: SIM905
    drawn.append(
        text(words, torch.tensor([0.1, 0.3, 0, 1.4, -0.2, -2.1, 0, 0, -0.1, -0.8, -0.3, 0, 0.1, 0, 0.2, 0, 0, 1.8]))
    )
    sheet(drawn, "ways.png", columns=3, width=560)


def results() -> None:
    """Draw the results that are no maps: dependence, importance, bias, concepts, units, what would have to change."""
    table, model, pool = breast_cancer(), shapes_resnet(), shapes(700, seed=7)
    first = table.features.index("worst concave points") if "worst concave points" in table.features else 0
    x = table.x_test[:100]
    stars, others = pool.images[pool.shape == 3], pool.images[pool.shape != 3]
    tcav = tw.TCAV(model, layer="layer3", pool=True)
    tcav.fit({"star": stars[:25], "not a star": others[475:500]}, list(others[:475].split(25)))
    masks = {name: (pool.mask[:200, 0] > 0) & (pool.shape[:200] == i)[:, None, None] for i, name in enumerate(SHAPES)}
    low, high = table.x_train.amin(0), table.x_train.amax(0)
    counterfactual = tw.Counterfactual(table.model, distance="l1", bounds=(low, high)).generate(x[:8].clamp(low, high))
    groups = table.x_test.clone()
    groups[:, first] = groups[:, first].clamp(-1, 1).round()
    tree = tw.SurrogateTree(table.model, max_depth=2).fit(table.x_train)
    drawn = [
        tw.PartialDependence(table.model)
        .measure(x, 0, feature=first)
        .plot(names=[table.features[first]], ylabel="logit"),
        tw.PermutationImportance(table.model).measure(table.x_test, table.y_test).plot(names=table.features, top=6),
        tw.BiasReport(table.model).measure(groups, 0, column=first).plot(),
        tcav.score(stars[25:], target=3).plot(),
        tw.NetworkDissection(model, layer="layer2", quantile=0.03).measure([(pool.images[:200], masks)]).plot(top=6),
        counterfactual.plot(names=table.features, top=6),
        tree.plot(feature_names=table.features, class_names=table.classes, fontsize=8),
        tw.FeatureVisualization(model, size=(48, 48), n_steps=100)
        .generate([0, 1, 2, 3])
        .plot(titles=SHAPES[:4], max_columns=4),
    ]
    sheet(drawn, "results.png")


def spray() -> None:
    """Draw the clusters that find a network which is right for a wrong reason."""
    example = runpy.run_path(str(PICTURES.parent.parent / "examples" / "clever_hans.py"))
    example["main"]().savefig(PICTURES / "spray.png", dpi=110, bbox_inches="tight")


def influence() -> None:
    """Draw the training digits that helped and harmed an answer."""
    example = runpy.run_path(str(PICTURES.parent.parent / "examples" / "influence.py"))
    example["main"]().plot(row=0).savefig(PICTURES / "influence.png", dpi=110, bbox_inches="tight")


def blocks_of(page: str) -> Iterator[tuple[str, object]]:
    """Run the code of a page, and yield what each block ends with: the name of the function or result that drew it, and what
    was drawn."""
    scope: dict[str, object] = {}
    text = (PICTURES.parent / page).read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        *before, last = ast.parse(block).body
        exec(compile(ast.Module(before, []), page, "exec"), scope)
        if not isinstance(last, ast.Expr):
            exec(compile(ast.Module([last], []), page, "exec"), scope)
            continue
        call = last.value
        name = ""
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            name = call.func.attr
            if name == "plot" and ast.unparse(call.func.value) != "visualize":
                scope["_drawn"] = eval(compile(ast.Expression(call.func.value), page, "eval"), scope)
                name = type(scope["_drawn"]).__name__
                call.func.value = ast.copy_location(ast.Name("_drawn", ast.Load()), call)
        yield name, eval(compile(ast.Expression(call), page, "eval"), scope)


def gallery() -> None:
    """Draw every picture of the gallery, small, with its name; functions on one sheet, results on another."""
    found = {name: drawn for name, drawn in blocks_of("gallery.md") if isinstance(drawn, Figure)}
    for sheet_name in ("functions", "results"):
        names = [n for n in found if n[0].islower() == (sheet_name == "functions")]
        _thumbnails({n: found[n] for n in names}, f"gallery_{sheet_name}.png")


def _thumbnails(figures: dict[str, Figure], name: str, columns: int = 5, side: tuple[int, int] = (300, 210)) -> None:
    """Write small pictures beside and below one another, each under its name; the names are in the file too."""
    width, height = side
    whole = Image.new("RGB", (columns * width, -(-len(figures) // columns) * (height + 22)), "white")
    pen = ImageDraw.Draw(whole)
    for i, (title, figure) in enumerate(figures.items()):
        left, top = i % columns * width, i // columns * (height + 22)
        small = Image.open(io.BytesIO(to_png(figure, dpi=110))).convert("RGB")
        small.thumbnail((width - 12, height - 6), Image.Resampling.LANCZOS)
        pen.text((left + 6, top + 4), title, fill="black", font_size=13)
        whole.paste(small, (left + 6, top + 22))
    told = PngInfo()
    told.add_text("names", " ".join(figures))
    whole.quantize(128).save(PICTURES / name, optimize=True, pnginfo=told)


def circuits() -> None:
    """Draw every circuit method on a question to SmolLM2; minutes, and only where its weights are."""
    example = runpy.run_path(str(PICTURES.parent.parent / "examples" / "circuits.py"))
    for name, figure in example["pictures"]():
        file = "patching.png" if name == "attribution" else f"circuits_{name}.png"
        figure.savefig(PICTURES / file, dpi=110, bbox_inches="tight")


DRAW = {
    draw.__name__: draw
    for draw in (
        *(attention, counterfactuals, visualizations, metrics, tables, ways, results),
        *(spray, influence, gallery, circuits),
    )
}

if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or DRAW:
        DRAW[name]()
