"""Optimized convolutions give the values and gradients that the model gives, with fewer operations, and touch nothing."""

import weakref
from contextlib import nullcontext

import pytest
import torch
from nets import inputs, make
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import torchwhy as tw
from torchwhy.engine.run.call_cost import CallCost
from torchwhy.engine.run.optimizations import (
    CallOptimizations,
    DeferredConvError,
    channels_last,
    choose_optimizations,
    is_compiled,
)


class Watch(TorchFunctionMode):
    """What is still run below the optimizations."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls.append((func, args))
        return func(*args, **(kwargs or {}))

    def of(self, *functions):
        return [args for func, args in self.calls if func in functions]


def settled(*modules):
    """The modules in a row, in eval mode, frozen, with statistics that matter."""
    net = nn.Sequential(*modules).double().eval().requires_grad_(False)
    for m in net:
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2)
            if m.affine:
                nn.init.normal_(m.weight)
                nn.init.normal_(m.bias)
    return net


def run(net, x, channels_last=False, fold=True):
    """Values, gradient, what was run, with the optimizations."""
    z = x.clone().requires_grad_()
    with Watch() as watch, CallOptimizations(channels_last=channels_last, fold=fold):
        y = net(z)
    return y, torch.autograd.grad(y.square().sum(), z)[0], watch


def same_as_plain(net, x, **options):
    y, g, watch = run(net, x, **options)
    z = x.clone().requires_grad_()
    expected = net(z)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(g, torch.autograd.grad(expected.square().sum(), z)[0])
    return watch


CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), 1),
    (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), 2),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6, affine=False), 2),
    (nn.Conv2d(4, 8, (3, 2), padding=(1, 0), dilation=2, groups=2), nn.BatchNorm2d(8, eps=0.1), 2),
    (nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="circular"), nn.BatchNorm2d(4), 2),
    (nn.Conv2d(4, 6, 3, padding="same", dilation=2), nn.BatchNorm2d(6), 2),
    (nn.Conv2d(4, 6, 3, padding="valid", stride=2), nn.BatchNorm2d(6), 2),
    (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), 3),
]


@pytest.mark.parametrize("conv, norm, dimensions", CONVOLUTIONS)
def test_batch_norm_is_folded(conv, norm, dimensions):
    x = torch.randn(3, 4, *[12, 11, 10][:dimensions], dtype=torch.double)
    assert not same_as_plain(settled(conv, norm, nn.GELU()), x).of(F.batch_norm, torch.batch_norm)


def test_folding_pays_or_is_left():
    net = settled(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    x = torch.randn(2, 4, 6, 6, dtype=torch.double)  # 32 pixels of 36 weights each
    optimizations = CallOptimizations()
    with Watch() as watch, optimizations:
        net(x)
    assert len(watch.of(F.batch_norm)) == 1
    with Watch() as watch, optimizations:  # 48 pixels
        y = net(torch.cat([x, x[:1]]))
    assert not watch.of(F.batch_norm)
    torch.testing.assert_close(y[:2], net(x))


def test_one_copy_of_the_weights_is_kept():
    net = settled(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    x = channels_last(torch.randn(3, 4, 8, 8, dtype=torch.double))  # 36 pixels of the output pay for one row
    optimizations, copies = CallOptimizations(), []
    for change in (False, True, False):
        if change:
            net[0].weight.mul_(2)
        with Watch() as watch, optimizations:
            net(x)
        copies += [weakref.ref(args[1]) for args in watch.of(torch.conv2d)]
        del watch
        assert len({id(copy()) for copy in copies if copy() is not None}) == 1
    assert [copy() is None for copy in copies] == [True, False, False]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("fold", [False, True])
def test_channels_last_weights_are_copies(dimensions, fold):
    kinds = [(nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d)][dimensions - 2]
    net = settled(kinds[0](3, 4, 3), kinds[1](4))
    x = torch.randn(2, 3, *[9] * dimensions, dtype=torch.double)
    last = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    with Watch() as watch, CallOptimizations(fold=fold):
        y = net(channels_last(x))
    assert all(args[1].is_contiguous(memory_format=last) for args in watch.of(torch.conv2d, torch.conv3d))
    assert len(watch.of(F.batch_norm)) == (not fold)
    assert net[0].weight.is_contiguous()
    torch.testing.assert_close(y, net(x))


def test_many_weights_are_not_copied_for_small_images():
    net = settled(nn.Conv2d(4, 6, 3))
    x = channels_last(torch.randn(2, 4, 4, 4, dtype=torch.double))  # 32 pixels of 36 weights each
    for rows, calls, copied in ((x, 1, False), (torch.cat([x, x]), 1, True), (x, 2, True)):
        with Watch() as watch, CallOptimizations(calls=calls):
            y = net(rows)
        assert [args[1] is not net[0].weight for args in watch.of(torch.conv2d)] == [copied]
        torch.testing.assert_close(y, net(rows))


def images_of(watch):
    return [args[0] for args in watch.of(torch.conv2d)]


def weighty(channels, kernel=1):
    """Two convolutions of images of 4 pixels: one with as many weights as pay for them, one with more output channels."""
    kinds = [nn.Conv2d(channels, c, kernel, padding=kernel // 2, bias=False) for c in (channels, channels + 2)]
    return [settled(kind, nn.BatchNorm2d(kind.out_channels)) for kind in kinds]


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("channels, kernel", [(362, 1), (120, 3)])  # 2**17 weights: for 4 pixels 2**15 each
def test_many_weights_for_few_pixels_keep_their_format(channels, kernel, fold):
    x = torch.randn(400, channels, 2, 2, dtype=torch.double)
    for net, last in zip(weighty(channels, kernel), (True, False)):
        assert (net[0].weight.numel() <= 2**17) == last
        watch = same_as_plain(net, channels_last(x), channels_last=True, fold=fold)
        assert [len(watch.of(F.batch_norm)) > 0, len(watch.of(torch.conv2d))] == [not fold, 1]
        ((images, weight, *_),) = watch.of(torch.conv2d)
        for tensor in (images, weight) if kernel > 1 else (images,):
            assert tensor.is_contiguous(memory_format=torch.channels_last) == last
            assert tensor.is_contiguous() != last


def test_a_model_in_the_format_stays_in_it():
    x, (_, net) = torch.randn(2, 120, 2, 2, dtype=torch.double), weighty(120, 3)
    watch = same_as_plain(net.to(memory_format=torch.channels_last), channels_last(x), channels_last=True, fold=False)
    ((images, weight, *_),) = watch.of(torch.conv2d)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert weight is net[0].weight


def test_pixels_of_the_output_count():
    net = settled(nn.Conv2d(130, 130, 3, stride=2, padding=1))  # 2**17.2 weights, on 16 pixels, of which it makes 4
    (images,) = images_of(same_as_plain(net, torch.randn(3, 130, 4, 4, dtype=torch.double), channels_last=True))
    assert images.is_contiguous()


def test_images_of_one_pixel_have_strides_that_are_taken_for_channels_last():
    """Else torch sees both formats, and runs the slow convolution of the other one."""
    net = settled(nn.Conv2d(6, 6, 5, padding=2, groups=6), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1))
    watch = same_as_plain(net, torch.randn(40, 6, 1, 1, dtype=torch.double), channels_last=True)
    assert [images.stride() for images in images_of(watch)] == [(6, 1, 6, 6)] * 2
    assert channels_last(torch.ones(2, 3, 1, 1, 1)).stride() == (3, 1, 3, 3, 3)
    assert len(watch.of(F.batch_norm)) == 1  # of one pixel costs nothing, and a bias may


def test_written_weights_are_folded_anew():
    net, x = settled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 3, 9, 9, dtype=torch.double)
    with CallOptimizations():
        net(x)
        for write in (net[0].weight.mul_, net[0].bias.add_, net[1].running_var.mul_, net[1].running_mean.add_):
            write(2)
            found = net(x)
            with torch._C.DisableTorchFunction():
                torch.testing.assert_close(found, net(x))


class Body(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.conv, self.norm = settled(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.body = forward

    def forward(self, x):
        return self.body(self, x)


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    def backward(ctx, g):
        return g / 2


def uses_it_twice(self, x):
    z = self.conv(x)
    return self.norm(z) + z


def uses_it_before(self, x):
    z = self.conv(x)
    half = z[:, :, ::2] * z.shape[1]
    return self.norm(z)[:, :, ::2] + half


def writes_to_it(self, x):
    z = self.conv(x)
    z.relu_()
    return self.norm(z)


def does_not_norm(self, x):
    return torch.cat([self.conv(x), self.conv(x + 1)], 1)


def other_statistics(self, x):
    z = F.batch_norm(self.conv(x), None, None, training=True)
    return z + F.batch_norm(self.conv(x), self.norm.running_mean.clone(), self.norm.running_var.clone(), training=True)


def computed_weights(self, x):
    return self.norm(F.conv2d(x, self.conv.weight * 2, self.conv.bias, padding="same"))


def one_number_for_all_dimensions(self, x):
    return self.norm(F.conv2d(x, self.conv.weight, self.conv.bias, stride=[2], padding=(1,)))


BODIES = [
    uses_it_twice, uses_it_before, writes_to_it, does_not_norm, other_statistics, computed_weights, one_number_for_all_dimensions
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_other_uses_of_a_convolution(body):
    same_as_plain(Body(body), torch.randn(2, 3, 9, 9, dtype=torch.double))


def writes_to_the_input(self, x):
    x = x * 1
    z = self.conv(x)
    x += 1
    return self.norm(z) + x


def switches_autograd(self, x):
    with torch.no_grad():
        z = self.conv(x)
    return self.norm(z) + x


def leaves_python(self, x):
    return self.norm(Half.apply(self.conv(x)))


@pytest.mark.parametrize("body", [writes_to_the_input, switches_autograd, leaves_python])
def test_what_cannot_be_deferred_is_run_again_without(body, optimized):
    net, x = Body(body), torch.randn(2, 3, 9, 9, dtype=torch.double)
    with pytest.raises(DeferredConvError):
        run(net, x)
    if body is writes_to_the_input:  # which autograd forbids
        method = tw.Occlusion(net, sliding_window_shapes=3)
    else:
        method = tw.IntegratedGradients(net, n_steps=20)
    expected = method.attribute(x, (1, 2, 3))
    with optimized():
        torch.testing.assert_close(method.attribute(x, (1, 2, 3)), expected)


def test_hooks_get_the_convolution_itself():
    net, x = settled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 3, 9, 9, dtype=torch.double)
    expected, seen = net[0](x), []
    net[0].register_forward_hook(lambda m, args, out: seen.append(out))
    with CallOptimizations():
        net(x)
    x.zero_()
    torch.testing.assert_close(seen[0] * 1, expected)


def test_hooks_get_the_gradient_of_the_convolution():
    net, x = settled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 3, 9, 9, dtype=torch.double)
    seen = []
    net[0].register_forward_hook(lambda m, args, out: (out.register_hook(seen.append), None)[1])
    same_as_plain(net, x)
    torch.testing.assert_close(seen[0], seen[1])


def test_weights_with_a_gradient_keep_it():
    net, x = settled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 3, 9, 9, dtype=torch.double)
    parameters = list(net[0].requires_grad_(True).parameters())
    expected = torch.autograd.grad(net(x).square().sum(), parameters)
    with CallOptimizations():
        y = net(x)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), parameters), expected)


@pytest.mark.parametrize("layer", ["conv2", "norm"])
def test_layers_below_and_above_a_folded_norm(layer, optimized):
    net, x = make("conv"), inputs("conv", 16)
    for method in (tw.InputXGradient, tw.GradCAM, tw.FeatureAblation, tw.Conductance):
        expected = method(net, layer=layer).attribute(x, 1)
        with optimized():
            torch.testing.assert_close(method(net, layer=layer).attribute(x, 1), expected)


def test_linear_maps_get_contiguous_inputs():
    net, x = settled(nn.Linear(5, 4)), torch.randn(3, 5, 7, dtype=torch.double).transpose(1, 2)
    assert not x.is_contiguous()
    assert all(args[0].is_contiguous() for args in same_as_plain(net, x).of(F.linear))


@pytest.mark.parametrize("same", [True, False])
def test_attention_gets_contiguous_inputs(same):
    net = nn.MultiheadAttention(6, 2, batch_first=True).double().eval().requires_grad_(False)
    x = torch.randn(3, 5, 6, dtype=torch.double)
    attend = lambda x: net(x, x if same else x + 1, x if same else x * 2)[0]  # noqa: E731
    (args,) = same_as_plain(attend, x).of(F.multi_head_attention_forward)
    assert all(a.is_contiguous() for a in args[:3])
    assert (args[0] is args[1]) == same


MIB = 2**20
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def cost(**facts):
    """The cost of a call of a network of 20 convolutions, each with its batch norm, that make half of what it makes."""
    found = CallCost()
    found.convolutions, found.batch_norms, found.convolved, found.total, found.dtype = (
        20,
        20,
        80 * MIB,
        160 * MIB,
        torch.float,
    )
    for name, value in facts.items():
        assert hasattr(found, name)
        setattr(found, name, value)
    return found


def few(convolved):
    return cost(convolutions=16, convolved=convolved, total=2 * convolved)


BOTH, LAST, FOLDED = (True, True), (True, False), (False, True)


@pytest.mark.parametrize(
    "of, times, device, graph, expected",
    [
        (cost(), 1, CPU, True, BOTH),
        (cost(), 1, CPU, False, BOTH),
        (cost(convolutions=0, convolved=0, batch_norms=0, dtype=None), 1, CPU, False, None),
        (cost(convolutions=1, convolved=19 * MIB), 1, CPU, False, None),  # the tokens of a transformer: below 1/8
        (cost(convolved=19 * MIB), 1, CPU, False, None),
        (cost(convolved=20 * MIB), 1, CPU, False, BOTH),
        (cost(convolved=9 * MIB), 1, CPU, True, None),  # whose backward half makes as much again
        (cost(convolved=10 * MIB), 1, CPU, True, BOTH),
        (few(2**20 - 1), 1, CPU, True, None),  # 2**16 bytes each, or too short
        (few(2**20), 1, CPU, True, BOTH),
        (few(2**18), 3.9, CPU, False, None),
        (few(2**18), 4, CPU, False, BOTH),  # but not for so many rows
        (cost(batch_norms=4), 1, CPU, True, LAST),  # hardly any, or none, to be folded
        (cost(batch_norms=5), 1, CPU, True, BOTH),
        (cost(summed=20 * MIB), 1, CPU, True, FOLDED),  # split attention
        (cost(summed=20 * MIB), 1, CPU, False, None),
        (cost(summed=19 * MIB), 1, CPU, False, BOTH),
        (cost(summed=20 * MIB, batch_norms=4), 1, CPU, True, None),
        (cost(dtype=torch.double), 1, CPU, True, FOLDED),
        (cost(dtype=torch.double), 1, CPU, False, None),
        (cost(dtype=torch.bfloat16), 1, CPU, True, LAST),  # in which batch norms stay exact
        (cost(dtype=torch.half), 1, CPU, False, LAST),
        (cost(), 1, CUDA, True, None),
        (cost(), 1, CUDA, False, FOLDED),
        (cost(dtype=torch.double), 1, CUDA, False, FOLDED),
        (cost(batch_norms=4), 1, CUDA, False, None),
        (cost(convolved=19 * MIB), 1, CUDA, False, None),
        (cost(dtype=torch.half), 1, CUDA, False, LAST),
        (cost(dtype=torch.bfloat16), 1, CUDA, False, LAST),
    ],
)
def test_the_rule_follows_from_shapes_types_and_the_device(of, times, device, graph, expected):
    chosen = choose_optimizations(make("conv"), of, times, device=device, graph=graph)
    assert (chosen and (chosen.channels_last, chosen.fold)) == expected


class Attends(nn.Module):
    """An encoder of tokens, with its batch first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.layer(x).sum(1)


@pytest.mark.parametrize("device, chosen", [(CPU, (False, False)), (CUDA, None)])
def test_attention_with_its_batch_first_has_contiguous_tokens(device, chosen):
    net = Attends().double().eval().requires_grad_(False)
    found = choose_optimizations(net, cost(convolutions=1, convolved=MIB), 1, device=device, graph=False)
    assert (found and (found.channels_last, found.fold)) == chosen
    x = torch.randn(3, 5, 8, dtype=torch.double, requires_grad=True)
    with Watch() as watch, found or nullcontext():
        y = net(x)
    (args,) = watch.of(F.multi_head_attention_forward)
    assert args[0].is_contiguous() == (chosen is not None)
    assert args[0] is args[1] is args[2]
    torch.testing.assert_close(y, net(x))
    torch.testing.assert_close(torch.autograd.grad(y[:, 0].sum(), x), torch.autograd.grad(net(x)[:, 0].sum(), x))


def test_what_a_call_costs_is_counted():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with CallCost() as found:
        y = torch.conv2d(x, torch.ones(4, 3, 3, 3))  # 2 × 4 × 6 × 6 numbers
        z = F.batch_norm(y, torch.zeros(4), torch.ones(4)).view(-1)[:5].relu()
        F.batch_norm(torch.ones(2, 4, 9), None, None, training=True)  # of weights, say
        (z + torch.conv1d(torch.ones(1, 1, 5), torch.ones(1, 1, 5))[0]).sum().backward()
        torch.cat([x, x], 1).view(2, 2, 3, 8, 8).sum(1).sum(1)  # groups of channels are summed, then channels
    with CallCost() as backward:
        (torch.ones(2, 2, 3, 8, 8) * x[:, None]).sum().backward()  # whose backward pass sums
    assert (found.convolutions, found.batch_norms, found.dtype) == (1, 1, torch.float)
    assert (found.convolved, found.summed, backward.summed) == (4 * 288, 2 * 4 * x.numel(), 0)
    assert found.largest == 2 * x.numel() * 4
    assert found.total > 4 * (288 + 5 * x.numel())  # with the gradient of x


def compiled(net):
    return torch.compile(net, backend="eager")


def compiled_in_place(net):
    net.compile(backend="eager")
    return net


def compiled_part(net):
    return nn.Sequential(torch.compile(net, backend="eager"), nn.Identity())


def compiled_function(net):
    return torch.compile(lambda x: net(x), backend="eager")


def scripted(net):
    return torch.jit.script(net)


def traced(net):
    return torch.jit.trace(net, torch.randn(2, 3, 9, 9, dtype=torch.double))


COMPILED = [compiled, compiled_in_place, compiled_part, compiled_function, scripted, traced]
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def small():
    return settled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3))


@QUIET
@pytest.mark.parametrize("how", COMPILED)
def test_compiled_models_are_left_as_they_are(how, optimized, monkeypatch):
    net, x = small(), torch.randn(3, 3, 9, 9, dtype=torch.double)
    expected = tw.IntegratedGradients(net, n_steps=20).attribute(x, 1)
    with optimized():
        model = how(small_copy(net))
        assert is_compiled(model)
        assert not is_compiled(net)
        monkeypatch.setattr(CallOptimizations, "__enter__", lambda self: pytest.fail("it was optimized"))
        torch.testing.assert_close(tw.IntegratedGradients(model, n_steps=20).attribute(x, 1), expected)


@QUIET
@pytest.mark.parametrize("how", COMPILED)
def test_what_was_compiled_inside_of_a_function_sees_the_model_as_it_is(how):
    """A compiler looks through the optimizations; TorchScript is not seen by them, and gets the values of what is deferred."""
    net, x = small(), torch.randn(3, 3, 9, 9, dtype=torch.double)
    model = how(small_copy(net))
    same_as_plain(lambda x: model(x) * 2, x)


def small_copy(net):
    other = small()
    other.load_state_dict(net.state_dict())
    return other


def test_a_compiler_reads_one_whole_graph():
    torch.compiler.reset()  # after many compiled models it would not try this one
    net, x = small(), torch.randn(3, 3, 9, 9, dtype=torch.double)
    whole = torch.compile(net, backend="eager", fullgraph=True)  # an error where the graph breaks
    with CallOptimizations():
        torch.testing.assert_close(whole(x), net(x))
