"""What matters to a model over all rows, and a tree that answers as it does: python examples/surrogates.py"""

from torch import nn

import torchwhy as tw
from torchwhy.models import breast_cancer


def main() -> None:
    data = breast_cancer()
    importance = tw.PermutationImportance(data.model, n_repeats=20).measure(data.x_test, data.y_test)
    print(f"accuracy {importance.score:.1%}; it falls most without")
    for k in importance.mean.argsort(descending=True)[:3].tolist():
        print(f"  {data.features[k]}: by {importance.mean[k]:.1%} ± {importance.std[k]:.1%}")
    best = int(importance.mean.argmax())
    curve = tw.PartialDependence(data.model, grid_resolution=5).measure(data.x_test, 1, feature=best)
    print("partial dependence:", [f"{v:.2f}" for v in curve.values.tolist()], "at", curve.grid[0].tolist())
    tree = tw.SurrogateTree(data.model, max_depth=2).fit(data.x_train)
    print(f"a tree agrees on {tree.fidelity:.0%} of rows held out:\n{tree.text(data.features)}")
    line = tw.SurrogateNetwork(data.model, network=nn.Linear(30, 2)).fit(data.x_train)
    print(f"a linear network agrees on {line.fidelity:.0%}")
    x = data.x_test.clone()
    x[:, 0] = (x[:, 0] > 0).float()  # as if the first column were a group
    print(tw.BiasReport(data.model, method=tw.IntegratedGradients(data.model)).measure(x, 1, column=0))


if __name__ == "__main__":
    main()
