"""What decides a run's numbers and where they came from: the content of run.json."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from gradcam_bench.cam.methods import own_function
from gradcam_bench.config import identity
from gradcam_bench.data.example import Dataset
from gradcam_bench.models.checkpoints import weights_hash
from gradcam_bench.models.custom_code import code_hash, function_hash
from gradcam_bench.models.model import Model
from gradcam_bench.run.precision import tf32_allowed
from gradcam_bench.store.computed_by import this_process
from gradcam_bench.store.parts import identity_hash

PACKAGES = ("gradcam-bench", "torch", "torchvision", "timm", "onnxruntime", "numpy", "pandas")


def build_provenance(
    config: DictConfig,
    model: Model,
    dataset: Dataset,
    layers: Sequence[str],
    device: torch.device,
    command: str,
) -> dict[str, Any]:
    """Return the content of run.json: what decides the numbers, and where they are computed."""
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    decides = identity(resolved)  # type: ignore[arg-type]
    decides["layers"] = list(layers)
    decides["model"].pop("checkpoint", None)  # the weights themselves are hashed
    code = code_hash(model.network, decides["model"].get("factory"))
    if code is not None:
        decides["model"]["code"] = code
    own = {name: function_hash(own_function(name)) for name in decides["methods"] if ":" in name}
    if own:
        decides["method_code"] = own
    decides["weights_hash"] = weights_hash(model.network)
    decides["data_fingerprint"] = dataset.fingerprint()
    decides["n_images"] = len(dataset)
    return {
        "command": command,
        "config_hash": identity_hash(decides),
        "model": model.name,
        "weights": model.weights,
        "layers": list(layers),
        "class_names": list(dataset.class_names),
        "n_images": len(dataset),
        "data_fingerprint": decides["data_fingerprint"],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "tf32": tf32_allowed(),
        **this_process(),
        "versions": versions(),
        "commit": commit(),
        "identity": decides,
        "config": resolved,
    }


def versions() -> Mapping[str, str]:
    """Return the installed versions of what decides a number."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the checkout this package runs from, marked where it is modified."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()
