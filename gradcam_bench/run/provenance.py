"""What decides a run's numbers and where they came from: the content of run.json."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from gradcam_bench.cam.methods import own_function
from gradcam_bench.config import identity
from gradcam_bench.models.checkpoints import weights_hash
from gradcam_bench.models.custom_code import code_hash, function_hash
from gradcam_bench.run.precision import tf32_allowed
from gradcam_bench.run.setup import RunSetup
from gradcam_bench.store.computed_by import this_process
from gradcam_bench.store.parts import identity_hash

PACKAGES = ("gradcam-bench", "torch", "torchvision", "timm", "onnxruntime", "numpy", "pandas")


def build_provenance(run: RunSetup, command: str) -> dict[str, Any]:
    """Return the content of run.json: what decides the numbers, and where they are computed."""
    resolved = OmegaConf.to_container(run.config, resolve=True, enum_to_str=True)
    assert isinstance(resolved, dict)
    decides = _decides(resolved, run)
    device = run.device
    return {
        "command": command,
        "config_hash": identity_hash(decides),
        "model": run.model.name,
        "weights": run.model.weights,
        "layers": list(run.layers),
        "class_names": list(run.dataset.class_names),
        "n_images": len(run.dataset),
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


def _decides(resolved: dict[Any, Any], run: RunSetup) -> dict[str, Any]:
    """Return the run's identity: the config, code, weights and data that its numbers depend on."""
    decides = identity(resolved)
    decides["layers"] = list(run.layers)
    decides["model"].pop("checkpoint", None)  # the weights themselves are hashed
    code = code_hash(run.model.network, decides["model"].get("factory"))
    if code is not None:
        decides["model"]["code"] = code
    own = {name: function_hash(own_function(name)) for name in decides["methods"] if ":" in name}
    if own:
        decides["method_code"] = own
    decides["weights_hash"] = weights_hash(run.model.network)
    decides["data_fingerprint"] = run.dataset.fingerprint()
    decides["n_images"] = len(run.dataset)
    return decides


def versions() -> Mapping[str, str]:
    """Return the installed versions of the packages on which a run's numbers depend."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


CHECKOUT = Path(__file__).parents[2]
"""The folder above the package: a checkout, unless it was installed from a wheel."""


def commit(checkout: Path = CHECKOUT) -> str | None:
    """Return the commit of a checkout, with "-dirty" where a tracked file of it is modified.

    Changes in results/ do not count: a run that replaces stored results does not mark the next run
    as one of modified code.

    Args:
        checkout: the checkout's root folder.

    Returns:
        None where it is no checkout, or Git cannot be asked.
    """
    if not (checkout / ".git").exists():
        return None
    try:
        head = _git(checkout, "describe", "--always", "--abbrev=12")
        changed = _git(checkout, "status", "--porcelain", "-uno", "--", ".", ":(exclude)results")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if changed else head


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()
