import math

import numpy as np
import pytest
import torch

from gradcam_bench import names
from gradcam_bench.cam import controls, methods
from gradcam_bench.errors import UserError


@pytest.fixture
def tensors():
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 4, 3, generator=g).relu(), torch.randn(2, 5, 4, 3, generator=g)


def loops(activations, gradients, weight):
    """Write sum_k w_k(i, j) A_k(i, j) out, position by position."""
    n, k, h, w = activations.shape
    out = np.zeros((n, h, w))
    for b in range(n):
        for c in range(k):
            A, g = activations[b, c].double().numpy(), gradients[b, c].double().numpy()
            out[b] += weight(A, g) * A
    return out


def gradcampp_weight(A, g):
    a = np.zeros_like(g)
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            d = 2 * g[i, j] ** 2 + A.sum() * g[i, j] ** 3
            a[i, j] = g[i, j] ** 2 / d if g[i, j] != 0 else 0
    return (a * np.maximum(g, 0)).sum()


EQUATIONS = {
    "grad_cam": lambda A, g: g.mean(),
    "hires_cam": lambda A, g: g,
    "layer_cam": lambda A, g: np.maximum(g, 0),
    "xgrad_cam": lambda A, g: (g * A).sum() / A.sum(),
    "grad_cam_plus_plus": gradcampp_weight,
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_method_is_its_equation_written_out(name, tensors):
    expected = loops(*tensors, EQUATIONS[name])
    np.testing.assert_allclose(methods.METHODS[name](*tensors).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 40, 3, 3), (1, 4, 6, 6)])
def test_eigen_cam_is_the_first_principal_component(shape):
    A = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    flat = A[0].flatten(1).T.double().numpy()
    flat = flat - flat.mean(0)
    u, s, _ = np.linalg.svd(flat)
    expected = (u[:, 0] * s[0]).reshape(shape[2:])
    found = methods.eigen_cam(A, torch.zeros_like(A))[0].numpy()
    sign = np.sign((found * expected).sum())
    np.testing.assert_allclose(found, sign * expected, atol=1e-4)
    assert (found.ravel() * flat.mean(1)).sum() > 0  # the side of the larger activations


@pytest.mark.parametrize("shape", [(40, 3, 3), (4, 6, 6)])
@pytest.mark.parametrize("factor", [1e-30, 1e25])
def test_the_first_component_scales_with_the_activations_over_the_range_of_float32(shape, factor):
    A = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    expected = methods.eigen_cam(A, A)
    found = methods.eigen_cam(torch.stack([A[0], A[1] * factor]), A)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1] / factor, expected[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", methods.METHODS)
@pytest.mark.parametrize("shape", [(40, 3, 3), (4, 6, 6)])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_an_image_that_is_not_finite_changes_no_other_image(name, shape, bad, everywhere):
    g = torch.Generator().manual_seed(2)
    A, gradients = torch.randn(3, *shape, generator=g), torch.randn(3, *shape, generator=g)
    method = methods.METHODS[name]
    expected = method(A[[0, 2]], gradients[[0, 2]])
    if everywhere:
        A[1] = gradients[1] = bad
    else:
        A[1, 0, 0, 0] = bad
    found = method(A, gradients)
    torch.testing.assert_close(found[[0, 2]], expected)
    assert not found[1].isfinite().all()
    if name.startswith("eigen"):
        assert found[1].isnan().all()


def test_every_method_is_finite_on_dead_layers():
    zeros = torch.zeros(2, 3, 4, 4)
    for method in methods.METHODS.values():
        assert torch.equal(method(zeros, zeros), torch.zeros(2, 4, 4))


def test_half_precision_is_reduced_in_float32(tensors):
    A, g = (t.bfloat16() for t in tensors)
    for method in methods.METHODS.values():
        assert torch.equal(method(A, g), method(A.float(), g.float()))


def test_random_depends_on_seed_and_image_alone():
    together = controls.random_map(["a", "b", "c"], 0)
    assert torch.equal(together[1:2], controls.random_map(["b"], 0))
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[:1], controls.random_map(["a"], 1))
    state = torch.random.get_rng_state()
    controls.random_map(["a"], 0)
    assert torch.equal(state, torch.random.get_rng_state())


def test_center_threshold_is_the_centred_square():
    found = controls.center_map(1, (10, 10))[0]
    share = found / found.max()
    for t in (0.15, 0.4, 0.7):
        rows = torch.where((share >= t).any(1))[0]
        side = len(rows)
        assert rows[0] == 10 - 1 - rows[-1]
        # 1 - |x| >= t (1 - 1/10): |x| up to 1 - 0.9 t, at pixel centres 0.1, 0.3, ...
        assert side == sum(abs(-0.9 + 0.2 * i) <= 1 - 0.9 * t + 1e-6 for i in range(10))


def test_unknown_methods_are_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no method 'gradcam'. Nearest: grad_cam"):
        methods.check_methods(["gradcam"])
    with pytest.raises(UserError, match="names a method twice"):
        methods.check_methods(["grad_cam", "grad_cam"])
    with pytest.raises(UserError, match="at least one"):
        methods.check_methods([])


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write functions into a module of their own, where they are found by `name:function`."""

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    return write


def test_every_method_has_a_record_and_every_record_a_function():
    assert set(methods.METHODS) | set(names.CONTROLS) == set(names.METHODS)
    assert list(names.METHODS)[-len(names.CONTROLS) :] == list(names.CONTROLS)
    for name, record in names.METHODS.items():
        assert record.name == name
        assert all((record.title, record.source, record.cost))
    for name, function in methods.METHODS.items():
        assert function.__name__ == name
        paper = names.METHODS[name].source.partition(",")[0]
        assert paper in " ".join(function.__doc__.split()) or name == "eigen_grad_cam"


def test_a_users_function_is_a_method_whose_arguments_are_copies(mine, tensors):
    mine("writes_into", "def my_map(A, g):\n    A.zero_(); g.fill_(2)\n    return (A + g).sum(1)\n")
    methods.check_methods(["grad_cam", "writes_into:my_map"])
    before = [t.clone() for t in tensors]
    found = methods.layer_method("writes_into:my_map")(*tensors)
    assert torch.equal(found, torch.full((2, 4, 3), 10.0))
    assert all(map(torch.equal, tensors, before))
    assert names.method_title("writes_into:my_map") == "my_map"


def test_a_users_function_that_cannot_be_a_method_is_refused(mine, tensors):
    mine("no_maps", "a = 3\ndef flat(A, g): return A.sum((1, 2, 3))\ndef number(A, g): return 1\n")
    for name, message in (
        ("no_such_module:f", "expects a method's name or module:function"),
        ("no_maps:missing", "has no attribute 'missing'"),
        ("no_maps:", "expects a method's name or module:function"),
        ("no_maps:a", "is int, expected a function"),
    ):
        with pytest.raises(UserError, match=message):
            methods.check_methods([name])
    with pytest.raises(UserError, match=r"gave \(2,\) for .* expected .* \(2, 4, 3\)"):
        methods.layer_method("no_maps:flat")(*tensors)
    with pytest.raises(UserError, match="gave int for"):
        methods.layer_method("no_maps:number")(*tensors)
