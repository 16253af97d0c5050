"""The only loop: images to maps to rows, part by part."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm import tqdm

from gradcam_bench import calibration
from gradcam_bench.config import bind, identity
from gradcam_bench.data.example import Dataset, Example
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.errors import UserError
from gradcam_bench.evaluation import Evaluation, Scored
from gradcam_bench.faithfulness import Options, Perturber
from gradcam_bench.feed import batches
from gradcam_bench.gradcam import GradCAM
from gradcam_bench.map_scores import Row, processes
from gradcam_bench.methods import CONTROLS, check_methods
from gradcam_bench.models import Model, weights_hash
from gradcam_bench.perturbation import n_points
from gradcam_bench.prepare import prepare
from gradcam_bench.protocols import Protocol
from gradcam_bench.scoring import make_scorer
from gradcam_bench.store import Store, identity_hash

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
PACKAGES = ("gradcam-bench", "torch", "torchvision", "timm", "onnxruntime", "numpy", "pandas")


class FirstN:
    """The first N examples of a data set."""

    def __init__(self, dataset: Dataset, limit: int) -> None:
        self.dataset, self.class_names = dataset, dataset.class_names
        self.image_ids: Sequence[str] = list(dataset.image_ids)[:limit]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        """Return example `index` of the whole data set."""
        return self.dataset[index]

    def fingerprint(self) -> str:
        """Return the fingerprint of the whole data set."""
        return self.dataset.fingerprint()


def bind_dataset(node: DictConfig) -> Callable[[], Dataset]:
    """Bind a data set's config to its signature; the call builds it, cut to `limit` examples.

    Raises:
        UserError: as `config.bind`, and for a limit that is no number of images.
    """
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    limit = values.pop("limit", None)
    build: Callable[[], Dataset] = bind(values, "dataset")
    if limit is None:
        return build
    if not isinstance(limit, int) or limit < 1:
        raise UserError(f"dataset.limit expects a number of images from 1, got {limit!r}.")
    return lambda: FirstN(build(), limit)


def run(config: DictConfig, output_dir: Path, *, command: str) -> bool:
    """Compute the missing parts of a run and store them.

    Args:
        config: of the schema `config.Config`.
        output_dir: where parts and run.json go.
        command: for the record.

    Returns:
        Whether every part of the run (all shards) now exists.

    Raises:
        UserError: anything in the config that cannot be run; too many broken examples. Parts
            that were finished stay.
    """
    _check(config)
    # Everything is bound to its signature before anything is built.
    build_model = bind(config.model, "model")
    build_dataset = bind_dataset(config.dataset)
    build_protocols = [bind(node, f"protocols.{n}") for n, node in config.protocols.items()]
    protocols: list[Protocol] = [build() for build in build_protocols]
    dataset = build_dataset()
    device = _device(config.device)
    model: Model = build_model()
    _check_classes(model, dataset)
    layers = _layers(config.layers, model)
    autocast = PRECISIONS[config.precision]
    network = model.network.to(device)
    provenance = _provenance(config, model, dataset, layers, device, command)
    if config.thresholds_from is not None:
        other = Path(config.thresholds_from)
        provenance["thresholds"] = calibration.choose(
            other, provenance, dataset.image_ids, output_dir=output_dir
        )
    store = Store(
        output_dir,
        provenance,
        n_images=len(dataset),
        part_size=config.part_size,
        overwrite=config.overwrite,
    )
    parts = store.missing_parts(config.shard.index, config.shard.count)
    if parts:
        faithfulness = _faithfulness(config, model, network, device, len(layers), parts, store)
        size = model.preprocessing.size
        prepared = prepare(network, torch.zeros(2, 3, size, size, device=device), layers=layers)
        evaluation = Evaluation(
            GradCAM(prepared.network, layers, autocast=autocast),
            model.preprocessing,
            memory_format=prepared.memory_format,
            methods=list(config.methods),
            protocols=protocols,
            faithfulness=faithfulness,
            follow_label=config.faithfulness.target == "label",
            road=config.faithfulness.road,
            seed=config.seed,
            device=device,
        )
        geometry = Geometry(
            size=size,
            mode=config.geometry,
            resize=model.preprocessing.resize if config.geometry == "center_crop" else None,
            interpolation=model.preprocessing.interpolation,  # type: ignore[arg-type]
        )
        if faithfulness is not None:
            store.run["scorer"] = faithfulness.scorer.name
        workers = config.num_workers
        if workers is None:
            workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
        with processes(workers) as evaluation.pool:
            _compute(config, evaluation, dataset, geometry, store, parts, workers)
    store.write_run()
    return store.complete()


def _compute(
    config: DictConfig,
    evaluation: Evaluation,
    dataset: Dataset,
    geometry: Geometry,
    store: Store,
    parts: Sequence[int],
    workers: int,
) -> None:
    """Run the loop over the missing parts; a part is stored when its last image is done."""
    n, kept = len(dataset), min(config.gallery, len(dataset))
    gallery_indices = {i * n // kept for i in range(kept)} if kept else set()
    indices = [i for part in parts for i in store.images_of(part)]
    loader = batches(
        dataset,
        geometry,
        indices,
        batch_size=config.batch_size,
        num_workers=workers,
        pin=evaluation.device.type == "cuda",
    )
    rows: dict[int, list[Row]] = {}
    pictures: dict[int, list[Row]] = {}
    broken: dict[int, int] = {}
    first_error = ""
    place = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
    started = time.perf_counter()
    with tqdm(total=len(indices), unit="img", desc=store.directory.name, smoothing=0.1) as bar:
        scored = (evaluation(batch, gallery_indices) for batch in loader)
        for batch in _ahead(scored, workers):
            for picture in batch.gallery:
                part = place[picture["image_id"]] // store.part_size
                pictures.setdefault(part, []).append(picture)
            for item, item_rows in zip(batch.items, batch.rows(), strict=True):
                part = item.index // store.part_size
                rows.setdefault(part, []).extend(item_rows)
                if item.error is not None:
                    broken[part] = broken.get(part, 0) + 1
                    first_error = first_error or item.error
                if item.index == store.images_of(part)[-1]:
                    now = time.perf_counter()
                    store.write_part(
                        part,
                        rows.pop(part),
                        pictures.pop(part, []),
                        errors=broken.get(part, 0),
                        seconds=now - started,
                    )
                    started = now
            bar.update(len(batch.items))
            total = sum(broken.values())
            if total > config.max_errors * n:
                raise UserError(
                    f"{total} of {n} examples are broken, more than max_errors="
                    f"{config.max_errors:g} tolerates. The first: {first_error} "
                    "Finished parts are kept; mend the files or raise max_errors, then run again."
                )


def _ahead(batches: Iterable[Scored], count: int) -> Iterator[Scored]:
    """Yield batches in order, each after `count` more were begun."""
    waiting: deque[Scored] = deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _check(config: DictConfig) -> None:
    check_methods(list(config.methods))
    if not config.protocols:
        raise UserError("protocol= expects at least one name, e.g. protocol=gradcam2017.")
    positive = {
        "batch_size": config.batch_size,
        "part_size": config.part_size,
        "shard.count": config.shard.count,
    }
    for key, value in positive.items():
        if value < 1:
            raise UserError(f"{key} expects a number from 1, got {value}.")
    if not 0 <= config.shard.index < config.shard.count:
        raise UserError(
            f"shard.index expects 0 to shard.count - 1 = {config.shard.count - 1}, "
            f"got {config.shard.index}."
        )
    if not 0 <= config.max_errors <= 1:
        raise UserError(f"max_errors expects a share from 0 to 1, got {config.max_errors}.")
    if config.num_workers is not None and config.num_workers < 0:
        raise UserError(f"num_workers expects a number from 0, got {config.num_workers}.")
    if config.gallery < 0:
        raise UserError(f"gallery expects a number of images from 0, got {config.gallery}.")
    if config.precision not in PRECISIONS:
        raise UserError(
            f"precision expects one of {', '.join(PRECISIONS)}, got {config.precision!r}."
        )
    if config.faithfulness.target not in ("predicted", "label"):
        raise UserError(
            f"faithfulness.target expects predicted or label, got {config.faithfulness.target!r}."
        )
    if config.geometry not in ("squash", "center_crop"):
        raise UserError(f"geometry expects squash or center_crop, got {config.geometry!r}.")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device={name} cannot be used here ({reason}); try device=cpu.") from error
    return device


def _layers(asked: Any, model: Model) -> list[str]:
    if asked == "default":
        return [model.default_layer]
    if asked == "all":
        return model.candidate_layers()
    if isinstance(asked, str):
        return [asked]
    layers = [str(layer) for layer in asked or []]
    if not layers or len(set(layers)) != len(layers):
        raise UserError(
            f"layers expects default, all, or a list of different module paths, got {layers}."
        )
    return layers


def _check_classes(model: Model, dataset: Dataset) -> None:
    size = model.preprocessing.size
    with torch.inference_mode():
        classes = model.network(torch.zeros(1, 3, size, size)).shape[-1]
    if classes != len(dataset.class_names):
        raise UserError(
            f"model={model.name} tells {classes} classes apart, but the data set has "
            f"{len(dataset.class_names)}; choose a model and a data set that belong together."
        )


def _faithfulness(
    config: DictConfig,
    model: Model,
    network: nn.Module,
    device: torch.device,
    n_layers: int,
    parts: Sequence[int],
    store: Store,
) -> Perturber | None:
    choices = config.faithfulness
    if not choices.enabled:
        return None
    options = Options(
        steps=choices.steps,
        deletion_baseline=choices.deletion_baseline,
        insertion_baseline=choices.insertion_baseline,
        ties=choices.ties,
        score=choices.score,
    )
    size = model.preprocessing.size
    _, points = n_points((size, size), options.steps)
    controls = sum(method in CONTROLS for method in config.methods)
    cells = (len(config.methods) - controls) * n_layers + controls
    n_images = sum(len(store.images_of(part)) for part in parts)
    scorer = make_scorer(
        config.scoring,
        network,
        size=size,
        device=device,
        n_images=n_images * cells * 2 * points,
        autocast=PRECISIONS[config.precision],
    )
    return Perturber(
        scorer,
        model.preprocessing,
        options,
        batch_size=max(config.batch_size, 32),
        seed=config.seed,
    )


def _provenance(
    config: DictConfig,
    model: Model,
    dataset: Dataset,
    layers: Sequence[str],
    device: torch.device,
    command: str,
) -> dict[str, Any]:
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    decides = identity(resolved)  # type: ignore[arg-type]
    decides["layers"] = list(layers)
    decides["model"].pop("checkpoint", None)  # the weights themselves are hashed
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
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
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
    here = Path(__file__).parents[1]
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
