"""Local state dicts, loaded without executing code, and the hash of a network's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradcam_bench.errors import UserError


def weights_hash(network: nn.Module) -> str:
    """Return a short hash of every tensor of a network, names included."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def load_checkpoint(network: nn.Module, path: str) -> None:
    """Load a local state dict into a network, never executing code from the file.

    Args:
        network: changed in place.
        path: a file of torch.save, or a .safetensors file.

    Raises:
        UserError: there is no such file, it holds no state dict, or that does not fit the network.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"model.checkpoint: there is no file {path}.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"model.checkpoint: {path} is no state dict that loads with weights_only "
            f"({type(error).__name__}); save it with torch.save(model.state_dict(), FILE)."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own = network.state_dict()
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    missing = [name for name in own if name not in state and "num_batches_tracked" not in name]
    unknown = [name for name in state if name not in own]
    # The auxiliary heads of inception_v3 and googlenet only serve training.
    missing = [name for name in missing if not name.startswith(("AuxLogits", "aux"))]
    if wrong or missing or unknown:
        what = [f"{len(missing)} missing, {len(unknown)} unknown, {len(wrong)} of another shape"]
        what += [f"e.g. {names[0]}" for names in (missing, unknown, wrong) if names]
        hint = "; set model.num_classes to the checkpoint's" if wrong else ""
        raise UserError(
            f"model.checkpoint: {path} does not fit {type(network).__name__}: "
            f"{', '.join(what)}{hint}."
        )
    network.load_state_dict(state, strict=False)
