"""Explanations as a step of a Ray Data pipeline, on a Ray of this machine: python examples/ray_data.py

Needs ``pip install "ray[data]"``; without it, it says so and ends. The numbers are those of the plain call.
"""

import sys

import numpy as np
import torch

import torchwhy as tw
from torchwhy.models import breast_cancer


def main() -> None:
    try:
        import ray
    except ImportError:
        print('this example needs Ray: pip install "ray[data]"')
        sys.exit(0)
    table = breast_cancer()
    x, y = table.x_test.numpy(), table.y_test.numpy()
    method = tw.IntegratedGradients(table.model, n_steps=16)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        rows = ray.data.from_items([{"row": i, "x": a, "label": b} for i, (a, b) in enumerate(zip(x, y))])
        found = rows.map_batches(
            tw.datasets.Mapper,
            fn_constructor_args=(method,),
            fn_constructor_kwargs={"target": "label"},
            concurrency=2,  # workers, each with the model
            batch_size=32,
        )
        explained = sorted(found.take_all(), key=lambda row: row["row"])
    finally:
        ray.shutdown()
    attributions = np.stack([row["attributions"] for row in explained])
    plain = method.attribute(table.x_test, table.y_test).numpy()
    print(f"{len(explained)} rows, with the columns {', '.join(explained[0])}")
    print(f"the largest difference from the plain call: {np.abs(attributions - plain).max():.1g}")
    assert np.allclose(attributions, plain, rtol=1e-5, atol=1e-6 * float(np.abs(plain).max()))
    print("what matters most:", table.features[int(torch.as_tensor(attributions).abs().mean(0).argmax())])


if __name__ == "__main__":
    main()
