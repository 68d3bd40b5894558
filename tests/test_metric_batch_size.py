"""The batch size changes no number, and no call of the model is larger."""

import pytest
import torch
from metric_cases import Scene, metrics_that

running = metrics_that(need="model method")


@running
@pytest.mark.parametrize("batch_sizes", [(2, 7), pytest.param((1,), marks=pytest.mark.slow)], ids=["more", "one"])
def test_batch_size_changes_nothing_and_no_call_is_larger(case, batch_sizes):
    scene, seen = Scene.make(), []
    free = case.measure(scene)
    scene.net.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    for batch_size in batch_sizes:
        seen.clear()
        bound = case.measure(scene, batch_size=batch_size)
        torch.testing.assert_close(free, bound, rtol=1e-9, atol=1e-11)
        assert seen
        assert max(seen) <= batch_size
