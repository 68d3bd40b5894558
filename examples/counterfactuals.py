"""What would have to change for another diagnosis? python examples/counterfactuals.py"""

import torchwhy as tw
from torchwhy.models import breast_cancer


def main() -> None:
    data = breast_cancer()
    x = data.x_test[:64]
    low, high = data.x_train.amin(0).minimum(x.amin(0)), data.x_train.amax(0).maximum(x.amax(0))
    real = data.x_train[data.model(data.x_train).argmax(1) == 1]
    settings = {"distance": "l1", "bounds": (low, high), "plausible": real}
    found = tw.Counterfactual(data.model, **settings).generate(x)
    print(f"{found.found.float().mean():.0%} of {len(x)} rows flipped, after {found.steps.float().mean():.0f} steps")
    was, now = (data.model(rows).argmax(1)[0] for rows in (x, found.counterfactuals))
    print(f"the first, from {data.classes[was]} to {data.classes[now]}, in standard deviations:")
    change = (found.counterfactuals - x)[0]
    for k in change.abs().argsort(descending=True)[:5].tolist():
        print(f"  {data.features[k]}: {change[k]:+.2f}")
    diverse = tw.Counterfactual(data.model, n_diverse=3, **settings).generate(x[:1])
    for change in (diverse.counterfactuals - x[:1, None])[0]:
        largest = [k for k in change.abs().argsort(descending=True)[:3].tolist() if change[k] != 0]
        print("  or:", ", ".join(f"{data.features[k]} {change[k]:+.2f}" for k in largest))


if __name__ == "__main__":
    main()
