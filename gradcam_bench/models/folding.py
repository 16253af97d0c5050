"""Batch norms folded into the convolutions before them, where nothing else would notice.

A pair is found by running the network: the batch norm's input is the convolution's very output
tensor. (torch.fx, which the library's own folding needs, cannot follow many networks, timm's among
them.) Every operator is watched: a pair stays as it is where anything but the batch norm reads the
convolution's output, or anything but themselves their parameters. And each pair is tried on its own
input, so that a convolution that does something else with its weights stays too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from gradcam_bench.models.reads import Reads

# How far a folded pair may be from the pair, as a share of the largest output: wide enough for the
# rounding of any convolution, whose effect on the answers is for `prepare` to look at.
PAIR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Pair:
    """A convolution and the batch norm that alone reads its output; modules and their paths."""

    conv_name: str
    conv: nn.Conv2d
    bn_name: str
    bn: nn.BatchNorm2d

    def folded(self) -> dict[str, Any]:
        """Return the weight and bias of the convolution that does the work of both."""
        conv, bn = self.conv, self.bn
        assert bn.running_mean is not None
        assert bn.running_var is not None
        weight, bias = nn.utils.fuse_conv_bn_weights(
            conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        return {"weight": weight, "bias": bias}

    def rest(self) -> nn.Module:
        """Return what the batch norm does besides: timm's carry their activation as a child."""
        children = OrderedDict(self.bn.named_children())
        rest = nn.Sequential(children) if children else nn.Identity()
        return rest.eval()


def fold_batch_norm(network: nn.Module, images: Tensor, *, keep: Sequence[str] = ()) -> int:
    """Fold batch norms into the convolutions before them, in place; return how many.

    Every module path stays: a batch norm becomes an identity, or what it does besides, under the
    names that this had.

    Args:
        network: eval mode.
        images: (N, 3, H, W); the branches that they take are the ones that are looked at.
        keep: layers whose output must stay what it is.
    """
    with torch.no_grad():
        pairs = _exact(network, images, _pairs(network, images, keep))
        for pair in pairs:
            for name, parameter in pair.folded().items():
                setattr(pair.conv, name, parameter)
            rest = pair.rest()
            for name, module in list(network.named_modules(remove_duplicate=False)):
                if module is pair.bn:
                    parent, _, child = name.rpartition(".")
                    setattr(network.get_submodule(parent), child, rest)
    return len(pairs)


def _plain(module: nn.Module) -> bool:
    """Return whether a convolution or batch norm is its float parameters and nothing else.

    Not so with weight_norm, spectral_norm, pruning or any parametrization, whose weights are made
    at each call, nor with hooks, which would see another output.
    """
    tensors: dict[str, Tensor] = dict(module.named_buffers(recurse=False))
    tensors |= dict(module.named_parameters(recurse=False))
    tensors.pop("num_batches_tracked", None)  # an integer
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return (
        not any(hooks)
        and not is_parametrized(module)
        and set(tensors) <= {"weight", "bias", "running_mean", "running_var"}
        and {tensor.dtype for tensor in tensors.values()} in ({torch.float32}, {torch.float64})
    )


def _candidates(network: nn.Module) -> tuple[dict[str, nn.Conv2d], dict[str, nn.BatchNorm2d]]:
    """Return the convolutions and batch norms that could be folded, by path."""
    plain = {name: module for name, module in network.named_modules() if name and _plain(module)}
    convs = {
        name: module
        for name, module in plain.items()
        if isinstance(module, nn.Conv2d) and "weight" in dict(module.named_parameters())
    }
    norms = {
        name: module
        for name, module in plain.items()
        if isinstance(module, nn.BatchNorm2d)
        and not module.training
        and module.running_mean is not None
        and module.running_var is not None
    }
    return convs, norms


class _Trace:
    """What happens to the candidates' inputs, outputs and parameters in one forward pass."""

    def __init__(self, convs: Mapping[str, nn.Conv2d], norms: Mapping[str, nn.BatchNorm2d]) -> None:
        self.convs, self.norms = convs, norms
        self.candidates: dict[str, nn.Module] = {**convs, **norms}
        self.reads = Reads()
        self.calls: Counter[str] = Counter()
        self.outputs: dict[int, str] = {}
        self.pairs: list[Pair] = []
        for name, module in self.candidates.items():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                self.reads.watch(("parameters", name), tensor)

    def enter(self, name: str, inputs: tuple) -> None:
        self.calls[name] += 1
        self.reads.inside.append(name)
        conv = self.outputs.get(id(inputs[0])) if inputs else None
        if name in self.norms and conv is not None:
            self.pairs.append(Pair(conv, self.convs[conv], name, self.norms[name]))

    def leave(self, name: str, output: object) -> None:
        self.reads.inside.pop()
        if name in self.convs and isinstance(output, Tensor):
            self.reads.watch(("output", name), output)  # keeps it, so that ids stay unique
            self.outputs[id(output)] = name

    def disturbed(self) -> set[str]:
        """Return the candidates of which something is read where it should not be."""
        reader = {pair.conv_name: pair.bn_name for pair in self.pairs}
        found = {name for name, times in self.calls.items() if times > 1}
        for read in self.reads.found:
            kind, name = read.key
            if (reader.get(name, "") if kind == "output" else name) not in read.inside:
                found.add(name)
        return found


def _pairs(network: nn.Module, images: Tensor, keep: Sequence[str]) -> list[Pair]:
    """Return the pairs that nothing else takes part in, as far as a forward pass can tell."""
    trace = _Trace(*_candidates(network))
    kept: list[object] = []
    asked_for = {name: network.get_submodule(name) for name in keep}
    with (
        _hooked(trace.candidates, before=trace.enter, after=trace.leave),
        _hooked(asked_for, after=lambda _name, output: kept.append(output)),
        trace.reads,
    ):
        network(images.clone())  # it may write into them
    left_alone = trace.disturbed() | {trace.outputs.get(id(output), "") for output in kept}
    return [pair for pair in trace.pairs if not left_alone & {pair.conv_name, pair.bn_name}]


def _exact(network: nn.Module, images: Tensor, pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs whose folded convolution gives what both give, each on its own input."""
    by_norm = {pair.bn_name: pair for pair in pairs}
    inputs: dict[str, tuple] = {}
    exact: list[Pair] = []

    def keep(name: str, given: tuple) -> None:
        inputs[name] = given

    def compare(name: str, output: Tensor) -> None:
        pair = by_norm[name]
        given = inputs.pop(pair.conv_name)
        folded = pair.rest()(functional_call(pair.conv, pair.folded(), given))
        inputs.pop(pair.conv_name)  # this call went through the hook as well
        if folded.shape != output.shape:
            return
        if float((folded - output).abs().max()) <= PAIR_TOLERANCE * float(output.abs().max()):
            exact.append(pair)

    with (
        _hooked({pair.conv_name: pair.conv for pair in pairs}, before=keep),
        _hooked({name: pair.bn for name, pair in by_norm.items()}, after=compare),
    ):
        network(images.clone())  # it may write into them
    return exact


def _nothing(_name: str, _value: Any) -> None:
    pass


@contextmanager
def _hooked(
    modules: Mapping[str, nn.Module], *, before: Any = _nothing, after: Any = _nothing
) -> Iterator[None]:
    """Call before(name, inputs) and after(name, output) around each call of the modules."""
    handles = []
    try:
        for name, module in modules.items():
            handles += [
                module.register_forward_pre_hook(lambda _m, inputs, n=name: before(n, inputs)),
                module.register_forward_hook(lambda _m, _i, output, n=name: after(n, output)),
            ]
        yield
    finally:
        for handle in handles:
            handle.remove()
