"""The batch size changes no number, and no call of the model is larger."""

import pytest
import torch
from metric_cases import Scene, metrics_that

running = metrics_that(need="model method")


@running
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_changes_nothing(case, batch_size):
    scene = Scene.make()
    free, bound = case.measure(scene), case.measure(scene, batch_size=batch_size)
    torch.testing.assert_close(free, bound, rtol=1e-9, atol=1e-11)


@running
def test_no_call_is_larger_than_batch_size(case):
    scene, seen = Scene.make(), []
    scene.net.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    case.measure(scene, batch_size=2)
    assert seen
    assert max(seen) <= 2
