"""Which layers of an unknown network can carry a map: found by one forward pass with hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError

POOLING = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)

NOT_A_FEATURE = (*POOLING, nn.modules.dropout._DropoutNd, nn.Identity)

BEFORE_ACTIVATION = (nn.Conv2d, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True)
class _Call:
    name: str
    module: nn.Module
    output: Tensor


def spatial_calls(network: nn.Module, size: int) -> list[_Call]:
    """Return the calls whose output is (1, K, h, w) with h*w > 1, in the order they finish.

    Modules that are called twice or that only pool, drop out or pass on are left out, and so are
    containers that hand on a pooled tensor.
    """
    calls: list[_Call] = []
    times: Counter[str] = Counter()
    handles = []
    pooled: set[int] = set()

    def hook_of(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def hook(module: nn.Module, _inputs: tuple, output: object) -> None:
            times[name] += 1
            if not isinstance(output, Tensor) or output.ndim != 4:
                return
            if isinstance(module, POOLING):
                pooled.add(id(output))
            calls.append(_Call(name, module, output))  # keeps the output, so that ids stay unique

        return hook

    training = [module for module in network.modules() if module.training]
    try:
        for module in training:
            module.training = False
        for name, module in network.named_modules():
            if name:
                handles.append(module.register_forward_hook(hook_of(name)))
        parameter = next(network.parameters())
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    return [
        call
        for call in calls
        if times[call.name] == 1
        and id(call.output) not in pooled
        and not isinstance(call.module, NOT_A_FEATURE)
        and call.output.shape[2] * call.output.shape[3] > 1
    ]


def last_spatial_layer(network: nn.Module, size: int) -> str:
    """Return the last module whose output is a feature map, pooling excluded.

    Raises:
        UserError: the network has no such layer (a transformer, say).
    """
    calls = spatial_calls(network, size)
    if not calls:
        raise UserError(
            f"{type(network).__name__} has no layer with a spatial output (N, K, h, w); "
            "Grad-CAM needs a convolutional network."
        )
    return calls[-1].name


def candidate_layers(network: nn.Module, size: int, *, prefer: str) -> list[str]:
    """Return the layers of a sweep, shallow to deep: blocks and activations, one per tensor.

    Looks at the network's modules and those directly inside its Sequential parts; bare convolutions
    and batch norms are left out, because the map before an activation is another (and worse) one.
    Of several modules that hand on the same tensor the preferred one stands for all, else the
    deepest.

    Args:
        network: any CNN.
        size: side of its input, pixels.
        prefer: the default layer, always among the result.
    """
    inside = {
        f"{name}.{child}"
        for name, part in network.named_children()
        if isinstance(part, nn.Sequential)
        for child, _ in part.named_children()
    } | {name for name, _ in network.named_children()}
    groups: dict[int, list[_Call]] = {}
    for call in spatial_calls(network, size):
        bare = isinstance(call.module, BEFORE_ACTIVATION) and not any(call.module.children())
        if call.name == prefer or (call.name in inside and not bare):
            groups.setdefault(id(call.output), []).append(call)
    layers = []
    for group in groups.values():
        names = [call.name for call in group]
        deepest = max(reversed(group), key=lambda call: call.name.count("."))
        layers.append(prefer if prefer in names else deepest.name)
    return layers
