"""What is relied on of torch that torch does not promise: a release that changes it fails here first."""

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
from sources import PACKAGE, TREES, all_nodes
from torch import nn
from torch.autograd.function import BackwardCFunction
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from torchwhy.engine import torch_internals as internals

HOME = Path(internals.__file__).relative_to(PACKAGE).as_posix()
OF_NAMED_TUPLES = {"_replace", "_asdict", "_fields"}  # promised by Python, in spite of the underscore
NOT_OF_TORCH = {  # each in one file, which says what for
    "_getframe": "engine/run/warn.py",
    "_hf_hook": "engine/run/placement.py",
    "_actions": "cli/completion.py",
    "_SubParsersAction": "cli/",
}


class Seen(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("base", "modules"),
    [
        (internals.BatchNormModule, [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm]),
        (internals.NormModule, [nn.BatchNorm1d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm3d]),
        (internals.ConvModule, [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d]),
        (internals.DropoutModule, [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout]),
        (internals.AdaptiveAvgPoolModule, [nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d]),
        (internals.AdaptiveMaxPoolModule, [nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d]),
        (internals.AvgPoolModule, [nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d]),
        (internals.MaxPoolModule, [nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d]),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_modules_of_all_dimensions_have_one_base(base, modules):
    assert all(issubclass(m, base) for m in modules)
    assert not issubclass(nn.Linear, base)


def test_batch_norm_is_told_from_instance_norm():
    assert not issubclass(nn.InstanceNorm2d, internals.BatchNormModule)


def test_function_modes_are_counted_and_a_default_device_is_one():
    assert internals.count_function_modes() == 0
    with torch.device("meta"):
        assert internals.count_function_modes() == 1
    with Seen(), Seen():
        assert internals.count_function_modes() == 2
    assert internals.count_function_modes() == 0


def test_dispatch_modes_see_what_is_computed_and_what_is_a_view():
    found = {}

    class Watch(internals.DispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found[func.__name__.split(".")[0]] = internals.makes_new_memory(func)
            return func(*args, **(kwargs or {}))

    x = torch.ones(2, 3)
    with Watch():
        x.exp().view(6).add_(1)
    assert found == {"exp": True, "view": False, "add_": False}


def test_functions_that_are_not_written_in_python_are_in_one_place():
    assert internals.NATIVE_FUNCTIONS.gelu is F.gelu
    assert callable(internals.NATIVE_FUNCTIONS.max_pool2d_with_indices)


def test_modes_do_not_see_what_is_done_without_torch_functions():
    x = torch.ones(2)
    with Seen() as seen:
        with internals.without_torch_functions():
            x.exp()
        assert seen.names == []
        x.exp()
    assert seen.names == ["exp"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_backward_pass_knows_whether_its_graph_is_kept(keep):
    found = []

    class Ask(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            found.append(internals.backward_keeps_graph())
            return g * 2

    x = torch.ones(1, requires_grad=True)
    torch.autograd.grad(Ask.apply(x), x, retain_graph=keep)
    assert found == [keep or internals.backward_keeps_graph is internals._always]  # where torch cannot say


def test_writing_to_a_tensor_or_a_view_of_it_changes_its_version():
    x = torch.ones(4)
    before = internals.version_of(x)
    x.exp()
    assert internals.version_of(x) == before
    x[:2].add_(1)
    assert internals.version_of(x) > before


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3).train(), nn.InstanceNorm1d(3)])
def test_the_node_of_a_norm_keeps_its_input(norm):
    x = torch.randn(2, 3, 4, requires_grad=True)
    nodes = [norm(x).grad_fn]
    while "BatchNorm" not in nodes[-1].name():
        nodes.append(nodes[-1].next_functions[0][0])
    torch.testing.assert_close(internals.saved_input(nodes[-1]).flatten(), x.detach().flatten())


def test_a_wrapper_has_a_shape_and_no_memory():
    class Wrapper(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            raise NotImplementedError

    like = torch.ones(1, dtype=torch.double)
    made = internals.make_wrapper(Wrapper, like, (2, 3))
    assert type(made) is Wrapper
    assert (made.shape, made.dtype, made.device) == ((2, 3), like.dtype, like.device)
    with pytest.raises(NotImplementedError):
        made + 1


def test_a_module_has_its_own_parameters_and_buffers():
    norm = nn.BatchNorm1d(3)
    net = nn.Sequential(nn.Linear(2, 3, bias=False), norm)
    parameters, buffers, modules, compiled = internals.own_parts(net)
    assert not parameters
    assert not buffers
    assert compiled is None
    assert list(modules.values()) == [net[0], norm]
    assert internals.own_parts(net[0])[0] == {"weight": net[0].weight, "bias": None}
    assert internals.own_parts(norm)[1] is internals.own_buffers(norm)
    assert list(internals.own_modules(net).values()) == [net[0], norm]
    keys = list(net.state_dict())
    other = torch.full((3,), 2.0)
    internals.own_buffers(norm)["running_var"] = other
    assert norm.running_var is other
    assert list(net.state_dict()) == keys


@pytest.mark.parametrize("how", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_is_a_function_that_modes_see(how):
    seen = []

    class Watches(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append((args, kwargs)) if func is internals.weight_norm else None
            return func(*args, **(kwargs or {}))

    net = how(nn.Linear(3, 2).double())
    with Watches():
        net(torch.ones(1, 3, dtype=torch.double))
    (((v, g, dim), _),) = seen
    assert dim == 0
    torch.testing.assert_close(net.weight, v * (g / v.norm(dim=1, keepdim=True)))


def test_a_compiled_module_says_what_it_was_made_from():
    net = nn.Linear(2, 1)
    made = torch.compile(net, backend="eager")
    assert getattr(made, internals.COMPILED_ATTRIBUTE) is net
    assert not hasattr(net, internals.COMPILED_ATTRIBUTE)


def test_what_is_compiled_says_so():
    net = nn.Linear(2, 1)
    assert internals.compiled_call(net) is None
    net.compile(backend="eager")
    assert internals.compiled_call(net) is not None
    assert hasattr(torch.compile(nn.Linear(2, 1).forward, backend="eager"), internals.COMPILED_MARK)


def test_a_backward_pass_is_known_while_it_runs():
    seen, x = [], torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: seen.append(internals.running_backward_pass()))
    y.sum().backward()
    assert seen[0] >= 0
    assert internals.running_backward_pass() == -1


def test_hooks_on_saved_tensors_are_known():
    def keep(tensor):
        return tensor

    if not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"):  # torch 2.4 cannot say
        assert internals.hooks_on_saved_tensors(True) is internals.NOT_KNOWN
        assert torch.func.vmap(lambda x: x * (internals.hooks_on_saved_tensors(True) is None))(torch.ones(1)) == 1
        return
    assert internals.hooks_on_saved_tensors(True) is None
    with torch.autograd.graph.saved_tensors_hooks(keep, keep):
        assert internals.hooks_on_saved_tensors(True) == (keep, keep)


def test_graphs_are_told_from_modules_that_call_modules():
    net, x = nn.Sequential(nn.Linear(2, 1)), torch.rand(2, 2)
    assert internals.is_graph(torch.jit.trace(net, x))
    assert internals.is_graph(torch.export.export(net, (x,)).module())
    assert not internals.is_graph(torch.fx.symbolic_trace(net))
    assert not internals.is_graph(net)


def test_the_body_of_a_function_hands_what_it_calls_to_the_mode_but_not_itself():
    x = torch.randn(2, 3)
    body = internals.body_without_dispatch(F.normalize)
    with Seen() as seen:
        found = body(x, dim=1)
    assert "normalize" not in seen.names
    assert len(seen.names) > 1
    torch.testing.assert_close(found, F.normalize(x, dim=1))
    assert internals.body_without_dispatch(torch.relu) is None


def is_private(name):
    """Whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def names_of_this_package():
    """The private names that it defines: functions, classes, variables and attributes."""
    for _, node in all_nodes():
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


@cache
def names_of_torch():
    """The private names of modules, tensors and nodes of the graph, which are torch's even if we had such a name."""
    node = torch.ones(1, requires_grad=True).exp().grad_fn
    return {name for it in (nn.Module(), torch.ones(1), node) for name in dir(it) if is_private(name)}


def foreign_names(tree, own):
    """The private names that a module imports from others, or asks objects for that have them from elsewhere, with lines."""
    own_alone = own - names_of_torch()
    for node in ast.walk(tree):
        names, allowed = [], set()  # what is private in one module is not for another, of this package or not
        if isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(a.name for a in node.names)]
        elif isinstance(node, ast.Attribute):
            is_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names, allowed = [node.attr], own if is_self else own_alone
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "attrgetter"):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            names, allowed = texts, own_alone
        yield from ((node.lineno, name) for name in names if is_private(name) and name not in allowed)


def test_private_names_of_others_are_used_in_one_file_only():
    own = set(names_of_this_package()) | OF_NAMED_TUPLES
    found = [
        f"{file}:{line} {name}"
        for file, tree in TREES.items()
        for line, name in foreign_names(tree, own)
        if file != HOME and not (name in NOT_OF_TORCH and file.startswith(NOT_OF_TORCH[name]))
    ]
    assert not found, "private names of others, those of torch belong into engine/torch_internals.py:\n" + "\n".join(
        found
    )


def test_nodes_of_the_graph_are_numbered_in_the_order_that_they_are_made():
    x = torch.ones(2, requires_grad=True)
    number = internals.next_sequence_number()
    first, second = x.exp(), x.sin()
    assert internals.sequence_number(first.grad_fn) == internals.number_of_node(first.grad_fn) == number
    assert internals.sequence_number(first.grad_fn) < internals.sequence_number(second.grad_fn)
    both = first + second
    assert internals.sequence_number(second.grad_fn) < internals.sequence_number(both.grad_fn)


def test_a_node_of_the_graph_knows_its_function():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = torch.ones(1, requires_grad=True)
    node = Twice.apply(x).grad_fn
    assert isinstance(node, BackwardCFunction)
    assert internals.function_of_node(node) is Twice
    number = internals.next_sequence_number()
    alone = Twice.apply(x).grad_fn  # in no graph any more, which torch 2.4 does not bear to be asked of
    assert internals.sequence_number(alone) in (number, -1)
    assert not isinstance(x.exp().grad_fn, BackwardCFunction)


def test_full_backward_hooks_are_a_function_in_the_graph():
    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(lambda *_: None)
    node = layer(torch.ones(1, 2, requires_grad=True)).grad_fn
    assert internals.function_of_node(node) is internals.BackwardHookFunction


def test_tensors_in_transforms_stand_for_others():
    x, seen = torch.ones(2, 3, requires_grad=True), []

    def row(t):
        outside = internals.unwrap_transformed(t)
        seen.append((t.requires_grad, outside is x or outside.data_ptr() == x.data_ptr(), outside.requires_grad))
        assert internals.transforms_are_active()
        return t.exp()

    torch.func.vmap(row)(x)
    assert seen == [(False, True, True)]
    assert internals.unwrap_transformed(x) is x
    assert not internals.transforms_are_active()


def test_hooks_of_a_module_put_a_view_into_the_graph():
    x = torch.randn(3, requires_grad=True)
    for base in (x, x * 2):
        (seen,) = internals.BackwardHookFunction.apply(base)
        assert type(seen.grad_fn) is internals.BackwardHookNode
        assert internals.base_of_view(seen) is base
    assert internals.base_of_view(x) is None
    assert internals.base_of_view((x * 2).view(3, 1)).shape == (3,)


def test_the_arguments_of_an_operator_by_name():
    x, w = torch.randn(1, 2, 3), torch.randn(2, 2, 1)
    named = internals.arguments_of_operator(torch.ops.aten.conv1d.default, (x, w), {"groups": 1})
    assert named["input"] is x
    assert named["weight"] is w
    assert (named["bias"], named["stride"], named["groups"]) == (None, [1], 1)
    assert internals.arguments_of_operator(torch.ops.aten.conv1d, (x, w), {}).keys() == named.keys()
