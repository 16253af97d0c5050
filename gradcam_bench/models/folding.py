"""Batch norms folded into the convolutions before them, where the network's answers stay the same.

A pair is found by running the network: the batch norm's input is the same tensor object as the
convolution's output. (torch.fx, which PyTorch's own folding needs, cannot follow many networks,
timm's among them.) Every operator of that run is watched. A pair is left as it is if anything but
the batch norm reads the convolution's output, or if anything but the two modules reads their
parameters. The folded convolution is then compared with the pair on the pair's own input, so a
convolution that uses its weights in another way is left as it is, too.
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

# The largest difference between a folded convolution's output and its pair's, as a share of the
# largest output. It allows for the rounding of any convolution; whether the network's answers stay
# the same is checked by `prepare`.
PAIR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Pair:
    """A convolution and the batch norm that alone reads its output.

    Attributes:
        conv_name: module path of the convolution.
        conv: the convolution.
        bn_name: module path of the batch norm.
        bn: the batch norm.
    """

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
        """Return what is left of the batch norm: its children (timm's hold the activation)."""
        children = OrderedDict(self.bn.named_children())
        rest = nn.Sequential(children) if children else nn.Identity()
        return rest.eval()


def fold_batch_norm(network: nn.Module, images: Tensor, *, keep: Sequence[str] = ()) -> int:
    """Fold batch norms into the convolutions before them, in place; return how many.

    Every module path stays valid: under its path a batch norm is replaced by an identity or, where
    it has children (timm's hold the activation), by these.

    Args:
        network: a classifier in eval mode.
        images: normalised, (N, 3, H, W); only the branches that the network takes for them are
            examined.
        keep: paths of the layers whose outputs must not change.
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
    """Return whether a convolution or batch norm computes with plain float parameters alone.

    It does not with weight_norm, spectral_norm, pruning or any parametrization, which make the
    weights at each call, nor with hooks, which would see another output after folding.
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
    """The pairs of one forward pass, and what reads the candidates' outputs and parameters."""

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
        """Return the candidates called twice, or whose output or parameters others read."""
        reader = {pair.conv_name: pair.bn_name for pair in self.pairs}
        found = {name for name, times in self.calls.items() if times > 1}
        for read in self.reads.found:
            kind, name = read.key
            if (reader.get(name, "") if kind == "output" else name) not in read.inside:
                found.add(name)
        return found


def _pairs(network: nn.Module, images: Tensor, keep: Sequence[str]) -> list[Pair]:
    """Return the pairs whose tensors nothing else reads, as far as one forward pass tells."""
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
    """Return the pairs whose folded convolution gives the same output on the pair's own input."""
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
