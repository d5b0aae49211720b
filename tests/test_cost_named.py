"""Never a silent zero: what has no formula is named, what would hide its operations is looked into or named."""

import contextlib
import threading
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from closed_forms import Do, X, do
from shoal.costing import cost
from shoal.costing.counting.elementwise import FREE, MADE, TAKEN, WINDOWS
from shoal.costing.counting.formulas import FORMULAS

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")


def custom(function):
    """An operation that is not torch's."""
    name = f"shoal_test::{function.__name__}"
    return torch.library.custom_op(name, function, mutates_args=())


def scaled(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


def sorted_rows(x: Tensor) -> Tensor:
    return x.sort().values


SCALED, SORTED = custom(scaled), custom(sorted_rows)


@pytest.mark.parametrize(
    ("make", "example", "name", "depth"),
    [
        (lambda: nn.Sequential(Do(lambda self, x: torch.linalg.solve(x, x))), X(3, 3), "aten._linalg_solve_ex at 0", 0),
        (do(lambda m, x: x @ torch.linalg.qr(m.w)[0], w=(4, 4)), X(2, 4), "aten.linalg_qr at Do", 1),
        (do(lambda _, x: torch.linalg.eigvalsh(x)), torch.eye(3), "aten._linalg_eigh at Do", 0),
        (do(lambda _, x: torch.matrix_exp(x)), X(3, 3), "aten.linalg_matrix_exp at Do", 0),
        (do(lambda m, x: SCALED(x, m.w), w=(4, 4)), X(2, 4), "shoal_test.scaled at Do", 1),
        (do(lambda _, x: SORTED(x)), X(2, 4), "shoal_test.sorted_rows at Do", 0),
    ],
)
def test_what_has_no_formula_is_named(make, example, name, depth):
    found = cost(make(), example)
    assert name in found.uncounted
    assert found.lower_bound
    assert found.depth == depth
    assert "at least" in str(found)
    assert name in str(found)


def test_each_name_stands_once_and_is_torchs():
    lists = [*FREE, *MADE, *TAKEN, *WINDOWS, *FORMULAS]
    assert len(set(lists)) == len(lists)
    known = {name.split(".")[0].split("::")[1].rstrip("_") for name in torch._C._dispatch_get_all_op_names()}
    assert [name for name in lists if "." not in name and name not in known] == []


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()


WHOLE = 4 * 16 * 27 + 64 * 2


def test_scripts_are_seen():
    x = X(1, 3, 6, 6)
    for scripted in (torch.jit.script(net()), torch.jit.trace(net(), x), torch.jit.freeze(torch.jit.script(net()))):
        found = cost(scripted, x)
        assert (found.macs, found.depth, found.uncounted) == (WHOLE, 2, ())
        within = cost(nn.Sequential(scripted, nn.Linear(2, 2)), x)
        assert (within.macs, within.depth) == (WHOLE + 4, 3)
        assert [(call.path, call.macs) for call in within.calls if call.macs] == [("", WHOLE), ("1", 4)]


def test_what_a_script_hides_is_named():
    optimised = torch.jit.optimize_for_inference(torch.jit.script(net()))
    if "mkldnn" not in str(optimised.inlined_graph):
        pytest.skip("torch has no library here that would hide anything")
    found = cost(nn.Sequential(optimised), X(1, 3, 6, 6))
    assert found.uncounted == ("prim.mkldnn_convolution at 0",)


def test_compiled_code_is_seen():
    compiled = torch.compile(net(), backend="eager")
    compiled(X(1, 3, 6, 6))
    assert cost(compiled, X(1, 3, 6, 6)).macs == WHOLE
    function = torch.compile(lambda x, w: torch.relu(x @ w), backend="eager", fullgraph=True)
    module = do(lambda m, x: function(x, m.w), w=(4, 4))()
    module(X(2, 4))
    assert cost(module, X(2, 4)).macs == 32


def test_exported_programs_are_seen():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            with torch.no_grad():
                y = self.layer(x)
            return torch.cond(x.sum() > 0, lambda z: self.layer(z), lambda z: z.sin(), (y,))

    program = torch.export.export(Steps(), (X(2, 4),)).module()  # it has one mode, and refuses eval()
    found = cost(program, torch.ones(2, 4))
    assert (found.macs, found.depth, found.uncounted) == (64, 2, ())


def test_what_fails_within_is_left_behind():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            with contextlib.suppress(RuntimeError):
                return self.first(x[:, :3])
            return self.second(x)

    found = cost(Tries(), X(2, 4))
    assert [(op.path, op.macs) for op in found.operations] == [("second", 16)]


def test_fused_layers_are_seen():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    assert cost(layer, X(2, 3, 8)).macs == 6 * (4 * 64 + 2 * 8 * 16) + 2 * 2 * 9 * 8
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_another_thread_is_named():
    def threaded(self, x):
        out = []
        thread = threading.Thread(target=lambda: out.append(self.inner(x)))
        thread.start()
        thread.join()
        return self.outer(out[0])

    module = Do(threaded)
    module.inner, module.outer = nn.Linear(4, 4), nn.Linear(4, 2)
    found = cost(module, X(2, 4))
    assert (found.macs, found.uncounted) == (16, ("another thread at inner",))


def test_inference_mode_within_a_module():
    inner = nn.Linear(3, 4)
    assert cost(Do(torch.inference_mode()(lambda self, x: inner(x))), X(2, 3)).macs == 24
    attend = Do(torch.inference_mode()(lambda self, q: F.scaled_dot_product_attention(q, q, q)))
    assert cost(attend, X(2, 4, 6, 8)).macs == 2 * 2 * 4 * 36 * 8


class Factored(Tensor):
    """A matrix that is two thin ones, behind one face, as quantised and distributed tensors are several."""

    @staticmethod
    def __new__(cls, left, right):
        return Tensor._make_wrapper_subclass(cls, (left.shape[0], right.shape[1]), dtype=left.dtype)

    def __init__(self, left, right):
        self.left, self.right = left, right

    def __tensor_flatten__(self):
        return ["left", "right"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, size, stride):
        return Factored(inner["left"], inner["right"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return args[0]
        assert func is torch.ops.aten.mm.default
        return args[0] @ args[1].left @ args[1].right


class Thin(Factored):
    """One that inherits how it works."""


@pytest.mark.parametrize("kind", [Factored, Thin])
def test_tensors_around_others_are_looked_into(kind):
    module = do(lambda m, x: x @ m.matrix)()
    module.matrix = nn.Parameter(kind(X(6, 1), X(1, 4)), requires_grad=False)
    found = cost(module, X(2, 6))
    assert (found.macs, found.depth, found.uncounted, found.bytes) == (2 * 6 + 2 * 4, 2, (), 4 * (6 + 4))


def test_checkpoints_and_gradients_within_are_seen():
    from torch.utils.checkpoint import checkpoint

    module = do(lambda m, x: checkpoint(lambda y: y @ m.w, x, use_reentrant=False), w=(4, 4))()
    assert cost(module, X(5, 4)).macs == 80

    class Force(nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = nn.Linear(4, 1)

        @torch.enable_grad()
        def forward(self, x):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.energy(x).sum(), x)[0]

    assert cost(Force(), X(3, 4)).macs == 12 + 12


def test_a_nest_of_lists_is_counted_one_by_one():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls nested tensors a prototype
        strided = torch.nested.nested_tensor([X(3, 4), X(5, 4)])
        assert cost(nn.Linear(4, 6), strided).macs == 8 * 24
