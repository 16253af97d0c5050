"""The methods: small pure functions from (activations, gradients) of a layer to its map.

Every map is signed and at the layer's resolution: the protocol decides about the ReLU and the
upsampling. Reductions are in float32 whatever the precision of the pass. To add a method, write
its record (title, source, cost) in names.py and its function, of the same name, here. A user's own
method needs neither: it is a function of another module, named "module:function".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradcam_bench import names
from gradcam_bench.errors import UserError, nearest

LayerMethod = Callable[[Tensor, Tensor], Tensor]

# Squares of values below 2**30, and sums of 2**60 of them, stay within float32's 2**127.
SAFE_EXPONENT = 30


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k alpha_k A_k, alpha_k = mean of dy/dA_k over positions; (N, h, w).

    References:
        Selvaraju et al. 2017, equations 1 and 2 without the final ReLU.
    """
    alpha = gradients.float().mean((2, 3))
    return torch.einsum("nk,nkhw->nhw", alpha, activations.float())


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k A_k sum_ij a_k relu(dy/dA_k), a_k = g^2 / (2 g^2 + sum(A_k) g^3); (N, h, w).

    References:
        Chattopadhay et al. 2018, equations 10 and 19, with y the logit (the exponential's factor
        cancels in `a`, and scales each image's map by a positive number).
    """
    A, g = activations.float(), gradients.float()
    denominator = 2 * g**2 + A.sum((2, 3), keepdim=True) * g**3
    a = torch.where(
        g != 0, g**2 / torch.where(denominator != 0, denominator, 1.0), torch.zeros_like(g)
    )
    return torch.einsum("nk,nkhw->nhw", (a * g.relu()).sum((2, 3)), A)


def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k dy/dA_k * A_k; (N, h, w).

    References:
        Draelos and Carin 2020, HiResCAM, equation 5.
    """
    return (gradients.float() * activations.float()).sum(1)


def xgrad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k alpha_k A_k, alpha_k = sum(g_k A_k) / sum(A_k); (N, h, w).

    References:
        Fu et al. 2020, XGrad-CAM, equation 8. A channel whose activations sum to 0 weighs 0.
    """
    A, g = activations.float(), gradients.float()
    total = A.sum((2, 3))
    alpha = torch.where(
        total != 0, (g * A).sum((2, 3)) / torch.where(total != 0, total, 1.0), 0.0 * total
    )
    return torch.einsum("nk,nkhw->nhw", alpha, A)


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k relu(dy/dA_k) * A_k; (N, h, w).

    References:
        Jiang et al. 2021, LayerCAM, equations 4 and 5.
    """
    return (gradients.float().relu() * activations.float()).sum(1)


def eigen_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the first principal component of the activations; (N, h, w). No class enters.

    References:
        Muhammad and Yeasin 2020. Each channel is centred by its mean over the positions. The
        decomposition leaves the component's sign open; the map correlates positively
        with the mean activation. The map of an image whose activations are not all finite is NaN.
    """
    return _first_component(activations.float())


def eigen_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the first principal component of dy/dA * A; (N, h, w), sign as in `eigen_cam`."""
    return _first_component(activations.float() * gradients.float())


def _first_component(features: Tensor) -> Tensor:
    """Return features (N, K, h, w) projected on their first principal component, (N, h, w)."""
    n, k, h, w = features.shape
    features = features.reshape(n, k, h * w)
    finite = features.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    features = torch.where(finite, features, 0.0)  # in the same memory layout
    # Where products of two values would leave the range of float32, scale the image by a power of
    # two, which rounds nothing.
    exponent = torch.frexp(features.abs().amax((1, 2), keepdim=True)).exponent
    exponent = exponent.where(exponent.abs() > SAFE_EXPONENT, 0)
    flat = torch.ldexp(features, -exponent).transpose(1, 2)
    centred = flat - flat.mean(1, keepdim=True)
    # The leading right singular vector from the smaller Gram matrix: positions or channels.
    if h * w <= k:
        _, vectors = torch.linalg.eigh(centred @ centred.transpose(1, 2))
        projection = vectors[..., -1]
        scale = torch.linalg.vector_norm(
            centred.transpose(1, 2) @ projection[..., None], dim=(1, 2)
        )
        projection = projection * scale[:, None]
    else:
        _, vectors = torch.linalg.eigh(centred.transpose(1, 2) @ centred)
        projection = (centred @ vectors[..., -1:])[..., 0]
    agreement = (projection * centred.mean(2)).sum(1, keepdim=True)
    signed = projection * torch.where(agreement < 0, -1.0, 1.0)
    maps = torch.ldexp(signed.reshape(n, h, w), exponent)
    return maps.masked_fill(~finite, torch.nan)


METHODS: dict[str, LayerMethod] = {
    name: globals()[name] for name in names.METHODS if name not in names.CONTROLS
}
"""The methods that read a layer, by name: each is the function of that name in this module."""


def layer_method(name: str) -> LayerMethod:
    """Return the function of a method: of `METHODS`, or a user's own as "module:function".

    A user's function is called with copies, so that what it writes into them reaches no other
    method.

    Raises:
        UserError: there is no such method, or, when it is called, it gives anything but (N, h, w).
    """
    return METHODS[name] if name in METHODS else _checked(name, own_function(name))


def own_function(name: str) -> LayerMethod:
    """Import a user's own method, given as "module:function".

    Raises:
        UserError: it cannot be imported, or is no function.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"methods= expects a method's name or module:function, got {name!r}: {error}."
        ) from error
    if not callable(found):
        raise UserError(
            f"methods={name} is {type(found).__name__}, expected a function of the activations "
            "and gradients of a layer, both (N, K, h, w), that gives maps (N, h, w)."
        )
    return found


def _checked(name: str, function: LayerMethod) -> LayerMethod:
    """Return a user's function that gets copies of its arguments and whose result is checked."""

    def checked(activations: Tensor, gradients: Tensor) -> Tensor:
        maps = function(activations.clone(), gradients.clone())
        n, _, h, w = activations.shape
        if not isinstance(maps, Tensor) or maps.shape != (n, h, w):
            got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise UserError(
                f"The method {name} gave {got} for activations {tuple(activations.shape)}, "
                f"expected one map an image: (N, h, w) = {(n, h, w)}."
            )
        return maps.detach().float()

    return checked


def check_methods(asked: Sequence[str]) -> None:
    """Raise a UserError for a name that is no method, and for one that stands there twice."""
    known = list(names.METHODS)
    if not asked:
        raise UserError(f"methods= expects at least one of: {', '.join(known)}.")
    for name in asked:
        if ":" in name:
            own_function(name)
        elif name not in known:
            raise UserError(
                f"There is no method {name!r}.{nearest(name, known)} Methods: {', '.join(known)}; "
                "your own: module:function."
            )
    if len(set(asked)) != len(asked):
        raise UserError(f"methods= names a method twice: {', '.join(asked)}.")
