"""Draw the same attributions here and by SHAP, Captum and pytorch-grad-cam, for docs/pairs.md.

``pip install -e ".[bench]"``, then ``python docs/pairs.py``; a minute.
"""

from __future__ import annotations

import runpy
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import shap
import torch
from captum.attr import visualization as captums
from matplotlib.figure import Figure
from pytorch_grad_cam.utils.image import show_cam_on_image

import torchwhy as tw
from torchwhy import visualize
from torchwhy.models import breast_cancer, shapes, shapes_resnet

DOCS = Path(__file__).resolve().parent
sheet = runpy.run_path(str(DOCS / "pictures.py"))["sheet"]


def current(draw: Callable[[], object]) -> Figure:
    """Return the figure that a function draws into pyplot's current one."""
    plt.close("all")
    draw()
    figure = plt.gcf()
    figure.set_layout_engine("tight")
    return figure


def rows() -> None:
    """Draw Shapley values of a table: a waterfall, a force plot, all rows."""
    data = breast_cancer()
    method = tw.KernelSHAP(data.model, n_samples=400, generator=0)
    background = tw.Distribution(data.x_train[:20])
    e = method.explain(data.x_test[:60], 0, baselines=background, names=list(data.features)).with_names(
        classes=data.classes
    )
    theirs = shap.Explanation(
        e.attributions.numpy(),
        e.base_scores.numpy(),
        data.x_test[:60].double().numpy().round(2),
        feature_names=list(data.features),
    )
    drawn = [
        e.plot(kind="waterfall", row=4, top=6),
        current(lambda: shap.plots.waterfall(theirs[4], max_display=7, show=False)),
        e.plot(kind="force", row=4, top=5),
        current(
            lambda: shap.plots.force(
                theirs.base_values[4],
                theirs.values[4],
                theirs.data[4],
                feature_names=list(data.features),
                matplotlib=True,
                show=False,
            )
        ),
        e.plot(kind="beeswarm", top=6),
        current(lambda: shap.plots.beeswarm(theirs, max_display=7, show=False)),
    ]
    sheet(drawn, "pairs_rows.png")


def groups() -> None:
    """Draw one row of which the columns are attributed in three groups."""
    data = breast_cancer()
    kinds = [
        ("mean", "error", "worst").index(name.split()[-1 if name.endswith("error") else 0]) for name in data.features
    ]
    mask = torch.tensor(kinds)
    e = tw.ExactShapley(data.model).explain(
        data.x_test[:60], 0, feature_mask=mask, names=["means", "errors", "worst values"]
    )
    theirs = shap.Explanation(
        e.attributions[4].numpy(),
        float(e.base_scores[4]),
        data.x_test[4].double().numpy().round(2),
        feature_names=list(data.features),
    )
    sheet(
        [e.plot(row=4), current(lambda: shap.plots.bar(theirs, max_display=8, show=False))],
        "pairs_groups.png",
    )


def maps() -> None:
    """Draw integrated gradients and a Grad-CAM over a picture."""
    model, data = shapes_resnet(), shapes(3, seed=3)
    x, label = data.images[:1], int(data.labels[0])
    e = tw.IntegratedGradients(model, n_steps=32).explain(x, label)
    cam = tw.GradCAM(model, layer="layer3").explain(x, label)
    picture = x[0].movedim(0, -1).numpy()
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    values = e.attributions[0].movedim(0, -1).numpy()
    options = {"show_colorbar": True, "use_pyplot": False, "sign": "all"}
    one = cam.attributions[0, 0].numpy()
    blended = show_cam_on_image(picture.astype(np.float32), (one - one.min()) / (one.max() - one.min()), use_rgb=True)
    figure, axes = plt.subplots(figsize=(4, 4))
    axes.imshow(blended)
    axes.set_axis_off()
    drawn = [
        visualize.heatmap(e[0], image=x[0], title="ours"),
        captums.visualize_image_attr(values, picture, "blended_heat_map", title="captum", **options)[0],
        visualize.heatmap(cam[0], image=x[0], photo="colour", title="ours"),
        figure,
    ]
    sheet(drawn, "pairs_maps.png")


def noise() -> None:
    """Draw a map that is nothing but rounding: windows are replaced by what is there, up to a ten-millionth."""
    model, x = shapes_resnet(), shapes(1, seed=3).images
    e = tw.Occlusion(model, sliding_window_shapes=8, strides=8).explain(x, 0, baselines=x * (1 - 1e-7))
    picture = x[0].movedim(0, -1).numpy()
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    values = e.attributions[0].movedim(0, -1).numpy()
    figure = captums.visualize_image_attr(
        values, picture, "heat_map", title="captum", sign="all", show_colorbar=True, use_pyplot=False
    )[0]
    sheet([visualize.heatmap(e[0], title="ours"), figure], "pairs_noise.png")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    for draw in (rows, groups, maps, noise):
        draw()
