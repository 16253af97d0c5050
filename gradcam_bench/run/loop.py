"""The only loop: images to maps to rows, part by part."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.config import bind
from gradcam_bench.data.example import Dataset
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.curves import Perturber
from gradcam_bench.faithfulness.scorers import Scorer, make_scorer
from gradcam_bench.localization import split_thresholds
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.models.model import Model
from gradcam_bench.models.prepare import prepare, warn_where_unstable
from gradcam_bench.names import Row
from gradcam_bench.run import scorer_choice
from gradcam_bench.run.batch import Evaluation, Scored
from gradcam_bench.run.batches import Item, batches, first_images
from gradcam_bench.run.named_protocols import check_published, with_named_protocols
from gradcam_bench.run.precision import full_float32
from gradcam_bench.run.provenance import build_provenance
from gradcam_bench.run.setup import (
    PRECISIONS,
    bind_dataset,
    check_classes,
    check_config,
    check_layers,
    choose_device,
    choose_layers,
    make_options,
    perturbed_images,
)
from gradcam_bench.run.workers import processes
from gradcam_bench.store.parts import Store


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
    with full_float32(config.precision == "float32"):
        return _run(config, output_dir, command=command)


def _run(config: DictConfig, output_dir: Path, *, command: str) -> bool:
    check_config(config)
    config = with_named_protocols(config)
    # Everything is bound to its signature before anything is built.
    build_model = bind(config.model, "model")
    build_dataset = bind_dataset(config.dataset)
    build_protocols = [bind(node, f"protocols.{n}") for n, node in config.protocols.items()]
    protocols: list[Protocol] = [build() for build in build_protocols]
    check_published(protocols)
    dataset = build_dataset()
    device = choose_device(config.device)
    model: Model = build_model()
    check_classes(model, dataset)
    layers = choose_layers(config.layers, model)
    autocast = PRECISIONS[config.precision]
    network = model.network.to(device)
    size = model.preprocessing.size
    geometry = Geometry(
        size=size,
        mode=config.geometry,
        resize=model.preprocessing.resize if config.geometry == "center_crop" else None,
        interpolation=model.preprocessing.interpolation,  # type: ignore[arg-type]
    )
    examples = first_images(dataset, geometry).to(device)
    examples = model.preprocessing.normalize(examples)
    check_layers(network, layers, examples, size, autocast=autocast)
    provenance = build_provenance(config, model, dataset, layers, device, command)
    if config.thresholds_from is not None:
        other = Path(config.thresholds_from)
        provenance["thresholds"] = split_thresholds.choose(
            other, provenance, dataset.image_ids, output_dir=output_dir
        )
    chosen = None
    if config.faithfulness.enabled:
        options = make_options(config)
        n_scored = perturbed_images(config, size, len(dataset), len(layers))
        because = f"{n_scored} perturbed images on {device.type} in {config.precision}"

        def make(choice: str) -> Scorer:
            return make_scorer(
                choice, network, examples, n_images=n_scored, autocast=PRECISIONS[config.precision]
            )

        chosen = scorer_choice.choose(output_dir, provenance, make, config.scoring, because)
    store = Store(
        output_dir,
        provenance,
        n_images=len(dataset),
        part_size=config.part_size,
        overwrite=config.overwrite,
        retry_errors=config.retry_errors,
    )
    parts = store.missing_parts(config.shard.index, config.shard.count)
    _tolerate(config, store, computing=parts)
    if parts:
        faithfulness = None
        if config.faithfulness.enabled:
            faithfulness = Perturber(
                scorer_choice.keep(output_dir, store.run, make, config.scoring, chosen),
                model.preprocessing,
                options,
                batch_size=max(config.batch_size, 32),
                seed=config.seed,
            )
        prepared = prepare(network, examples, layers=layers)
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
        warn_where_unstable(evaluation.cam, examples, evaluation.methods)
        workers = config.num_workers
        if workers is None:
            workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
        with processes(workers) as evaluation.pool:
            _compute(config, evaluation, dataset, geometry, store, parts, workers)
    store.write_run()
    _tolerate(config, store)
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
    broken: dict[int, list[Item]] = {}
    computing = list(parts)
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
                    broken.setdefault(part, []).append(item)
                if item.index == store.images_of(part)[-1]:
                    now = time.perf_counter()
                    store.write_part(
                        part,
                        rows.pop(part),
                        pictures.pop(part, []),
                        seconds=now - started,
                        broken_files=[
                            bad.broken_file for bad in broken.pop(part, []) if bad.broken_file
                        ],
                    )
                    computing.remove(part)
                    started = now
            bar.update(len(batch.items))
            _tolerate(config, store, computing=computing, broken=broken)


def _tolerate(
    config: DictConfig,
    store: Store,
    *,
    computing: Sequence[int] = (),
    broken: Mapping[int, Sequence[Item]] | None = None,
) -> None:
    """Stop where the whole run, all shards and earlier processes together, has too many errors.

    Args:
        config: of the run; `max_errors` is the share of its images that may be broken.
        store: its parts.
        computing: the parts that this process has not stored yet.
        broken: the broken examples that it has found in them.

    Raises:
        UserError: more examples are broken than `max_errors` tolerates.
    """
    own = [item for items in (broken or {}).values() for item in items]
    limit, anew = config.max_errors * store.n_images, set(computing)
    if len(own) + store.errors(without=anew) <= limit:
        return
    total = len(own) + store.recount_errors(without=anew)
    if total > limit:
        first = own[0].error if own else store.first_error()
        raise UserError(
            f"{total} of {store.n_images} examples are broken, more than max_errors="
            f"{config.max_errors:g} tolerates. The first: {first} Finished parts are kept; mend "
            "the files or raise max_errors, then run again (retry_errors=true tries all of them "
            "again)."
        )


def _ahead(batches: Iterable[Scored], count: int) -> Iterator[Scored]:
    """Yield batches in order, each after `count` more were begun."""
    waiting: deque[Scored] = deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
