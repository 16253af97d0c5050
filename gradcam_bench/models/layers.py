"""Which layers of an unknown network can carry a map: found by running it once or twice."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradcam_bench.cam.feature_maps import Call, survey
from gradcam_bench.cam.frozen import frozen
from gradcam_bench.errors import UserError
from gradcam_bench.models.reads import Reads

log = logging.getLogger(__name__)

POOLING = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)

NOT_A_FEATURE = (*POOLING, nn.modules.dropout._DropoutNd, nn.Identity)

BEFORE_ACTIVATION = (nn.Conv2d, nn.modules.batchnorm._BatchNorm)

# By their names in ATen (ReLU6 is hardtanh). Without sigmoid, which mostly makes a gate.
ACTIVATIONS = {
    "relu", "relu6", "hardtanh", "clamp", "clamp_min", "leaky_relu", "prelu", "elu", "selu",
    "celu", "gelu", "silu", "mish", "hardswish", "softplus", "tanh", "threshold",
}  # fmt: skip


def spatial_calls(calls: Sequence[Call]) -> list[Call]:
    """Return the calls whose output is a feature map (1, K, h, w) with h*w > 1, in their order.

    Left out are modules that are called twice, pooling, dropout and identity modules, and
    containers that return a pooled tensor.

    Args:
        calls: the calls of a network's modules, from `feature_maps.survey`.
    """
    times = Counter(call.name for call in calls)
    pooled = {id(call.output) for call in calls if isinstance(call.module, POOLING)}
    return [
        call
        for call in calls
        if call.axes == "channels first"
        and times[call.name] == 1
        and id(call.output) not in pooled
        and not isinstance(call.module, NOT_A_FEATURE)
        and call.output.shape[2] * call.output.shape[3] > 1
    ]


def last_spatial_layer(network: nn.Module, size: int) -> str:
    """Return the last module whose output is a feature map, pooling excluded.

    Logs a warning where the network applies an activation function to that output outside of any
    module: maps of this layer are then read before the activation, and differ from those after it.

    Args:
        network: any classifier.
        size: side of its input, pixels.

    Raises:
        UserError: the network has no such layer, or continues with tokens after it (a transformer),
            so that no layer is the obvious default.
    """
    calls = survey(network, size)
    maps = spatial_calls(calls)
    if not maps:
        raise UserError(
            f"{type(network).__name__} has no layer with a spatial output (N, K, h, w); "
            "Grad-CAM needs a convolutional network."
        )
    last = maps[-1]
    tokens = _tokens_behind(last, calls)
    if tokens is not None:
        raise UserError(
            f"{type(network).__name__} has no default layer: behind its last feature map "
            f"(N, K, h, w), {last.name}, it goes on with tokens or channels last ({tokens.name} "
            f"gives {tuple(tokens.output.shape)}). Choose a layer explicitly, "
            f"e.g. layers=[{last.name}] or model.layer={last.name}."
        )
    activations = activations_that_read(network, last.name, size)
    if activations:
        log.warning(
            "%s applies %s to the output of %s, its default layer, outside of any module: maps "
            "are read before that activation. Make it a module to read them behind it.",
            type(network).__name__,
            ", ".join(activations),
            last.name,
        )
    return last.name


def _tokens_behind(last: Call, calls: Sequence[Call]) -> Call | None:
    """Return the first later call of a module with weights that gives tokens, or None.

    Tokens inside of a module that turns the map into a vector (attention pooling) do not count.

    Args:
        last: the call that gave the last feature map.
        calls: all calls of the network, in their order.
    """
    place = next(i for i, call in enumerate(calls) if call is last)
    behind = [
        call
        for call in calls[place + 1 :]
        if call.axes in ("tokens", "channels last") and any(True for _ in call.module.parameters())
    ]
    vectors = {call.name for call in calls if call.output.ndim == 2}
    for call in behind:
        parts = call.name.split(".")
        around = {".".join(parts[:i]) for i in range(1, len(parts))}
        pooling = {name for name in around & vectors if not f"{last.name}.".startswith(f"{name}.")}
        if not pooling:
            return call
    return None


def activations_that_read(network: nn.Module, layer: str, size: int) -> list[str]:
    """Return the names of the activation functions that the network applies to a layer's output.

    Args:
        network: gives logits for (1, 3, size, size); runs once, on zeros.
        layer: a module's path.
        size: side of the input, pixels.
    """
    parameter = next(network.parameters())
    image = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    reads = Reads()

    def watch(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        reads.watch(("output", layer), output)

    with torch.no_grad(), frozen(network), reads:
        handle = network.get_submodule(layer).register_forward_hook(watch)
        try:
            network(image)
        finally:
            handle.remove()
    return sorted({read.operator.rstrip("_") for read in reads.found} & ACTIVATIONS)


def candidate_layers(network: nn.Module, size: int, *, prefer: str) -> list[str]:
    """Return the layers of a sweep (`layers=all`), shallow to deep, one per output tensor.

    Candidates are the network's direct children and the children of its Sequential parts. Bare
    convolutions and batch norms are left out, because a map read before an activation differs from
    the one after it (and is worse). Where several modules return the same tensor, the preferred
    layer stands for all of them, or else the one nested deepest.

    Args:
        network: any CNN.
        size: side of its input, pixels.
        prefer: path of the default layer, which is always among the result.
    """
    inside = {
        f"{name}.{child}"
        for name, part in network.named_children()
        if isinstance(part, nn.Sequential)
        for child, _ in part.named_children()
    } | {name for name, _ in network.named_children()}
    groups: dict[int, list[Call]] = {}
    for call in spatial_calls(survey(network, size)):
        bare = isinstance(call.module, BEFORE_ACTIVATION) and not any(call.module.children())
        if call.name == prefer or (call.name in inside and not bare):
            groups.setdefault(id(call.output), []).append(call)
    layers = []
    for group in groups.values():
        names = [call.name for call in group]
        deepest = max(reversed(group), key=lambda call: call.name.count("."))
        layers.append(prefer if prefer in names else deepest.name)
    return layers


def map_shapes(
    network: nn.Module, size: int, layers: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    """Return the shape (K, h, w) of the maps of some layers, by their paths.

    Args:
        network: any classifier.
        size: side of its input, pixels.
        layers: paths of modules with a spatial output, as `candidate_layers` gives them.
    """
    found = {call.name: call.output.shape for call in spatial_calls(survey(network, size))}
    return {name: (found[name][1], found[name][2], found[name][3]) for name in layers}
