"""The loop of a run: from images to maps to stored rows, part by part."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.faithfulness.scorers import Scorer, make_scorer
from gradcam_bench.faithfulness.target_scores import TargetScores
from gradcam_bench.localization import split_thresholds
from gradcam_bench.models.prepare import prepare, warn_where_unstable
from gradcam_bench.names import Followed, Precision
from gradcam_bench.run import scorer_choice
from gradcam_bench.run.batch import Evaluation, Scored
from gradcam_bench.run.batches import batches
from gradcam_bench.run.faithfulness_columns import FaithfulnessColumns
from gradcam_bench.run.gallery import kept_images
from gradcam_bench.run.localization_columns import MapScores
from gradcam_bench.run.maps import CellMaps, Input
from gradcam_bench.run.open_parts import OpenParts
from gradcam_bench.run.precision import full_float32
from gradcam_bench.run.provenance import build_provenance
from gradcam_bench.run.setup import RunSetup, make_options, set_up
from gradcam_bench.run.workers import processes
from gradcam_bench.store.parts import Store

SCORED_TOGETHER = 32
"""The least number of perturbed images scored at a time, also where `batch_size` is smaller."""


def run(config: DictConfig, output_dir: Path, *, command: str) -> bool:
    """Compute the missing parts of a run and store them.

    Args:
        config: of the schema `config.Config`.
        output_dir: where parts and run.json go.
        command: the command line of the run, which run.json records.

    Returns:
        Whether every part of the run (all shards) now exists.

    Raises:
        UserError: anything in the config that cannot be run; too many broken examples. Parts
            that were finished stay.
    """
    with full_float32(config.precision == Precision.float32):
        return _run(set_up(config), output_dir, command)


def _run(setup: RunSetup, output_dir: Path, command: str) -> bool:
    config = setup.config
    provenance = build_provenance(setup, command)
    if config.thresholds_from is not None:
        provenance["thresholds"] = split_thresholds.choose(
            Path(config.thresholds_from),
            provenance,
            setup.dataset.image_ids,
            output_dir=output_dir,
        )
    choice = _scorer_choice(setup, output_dir)
    if choice is not None:
        choice.before_the_run(provenance)
    store = Store(
        output_dir,
        provenance,
        n_images=len(setup.dataset),
        part_size=config.part_size,
        overwrite=config.overwrite,
        retry_errors=config.retry_errors,
    )
    parts = store.missing_parts(config.shard.index, config.shard.count)
    open_parts = OpenParts(store, parts, config.max_errors)
    open_parts.tolerate()
    if parts:
        evaluation = _evaluation(setup, None if choice is None else choice.of_the_run(store.run))
        _compute(setup, evaluation, open_parts)
    store.write_run()
    open_parts.tolerate()
    return store.complete()


def _scorer_choice(setup: RunSetup, output_dir: Path) -> scorer_choice.ScorerChoice | None:
    """Return how the scorer of the run is chosen; None where nothing is scored."""
    config, n_images = setup.config, setup.perturbed_images
    if not config.faithfulness.enabled:
        return None

    def make(choice: str) -> Scorer:
        return make_scorer(
            choice,
            setup.model.network,
            setup.examples,
            n_images=n_images,
            autocast=setup.autocast,
        )

    because = f"{n_images} perturbed images on {setup.device.type} in {config.precision}"
    return scorer_choice.ScorerChoice(output_dir, make, config.scoring, because)


def _evaluation(setup: RunSetup, scorer: Scorer | None) -> Evaluation:
    """Return what turns the batches of a run into rows; without a scorer, no faithfulness."""
    config, preprocessing = setup.config, setup.model.preprocessing
    prepared = prepare(setup.model.network, setup.examples, layers=setup.layers)
    to_input = Input(preprocessing, setup.device, prepared.memory_format)
    cam = GradCAM(prepared.network, setup.layers, autocast=setup.autocast)
    cell_maps = CellMaps(cam, list(config.methods), to_input.size, config.seed)
    warn_where_unstable(cam, setup.examples, cell_maps.methods)
    faithfulness = None
    if scorer is not None:
        faithfulness = FaithfulnessColumns(
            TargetScores(scorer, max(config.batch_size, SCORED_TOGETHER)),
            preprocessing,
            make_options(config),
            follow_label=config.faithfulness.target == Followed.label,
            road=config.faithfulness.road,
        )
    localization = MapScores(setup.protocols, to_input.size)
    return Evaluation(to_input, cell_maps, localization, faithfulness)


def _compute(setup: RunSetup, evaluation: Evaluation, parts: OpenParts) -> None:
    """Score the images of the missing parts; a part is stored when its last image is done."""
    config, dataset, store = setup.config, setup.dataset, parts.store
    workers = _workers(config.num_workers, setup.device)
    kept = kept_images(len(dataset), config.gallery)
    indices = [i for part in parts.waiting for i in store.images_of(part)]
    loader = batches(
        dataset,
        setup.geometry,
        indices,
        batch_size=config.batch_size,
        num_workers=workers,
        pin=setup.device.type == "cuda",
    )
    progress = tqdm(total=len(indices), unit="img", desc=store.directory.name, smoothing=0.1)
    with processes(workers) as evaluation.pool, progress:
        for batch in _ahead((evaluation(batch, kept) for batch in loader), workers):
            parts.add(batch)
            progress.update(len(batch.items))


def _workers(asked: int | None, device: torch.device) -> int:
    """Return the number of processes that decode images, and of those that localize maps.

    By default there are none on the CPU, where they would take cores from the network.
    """
    if asked is not None:
        return asked
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def _ahead(batches: Iterable[Scored], count: int) -> Iterator[Scored]:
    """Yield batches in order, each only after `count` further ones were started."""
    waiting: deque[Scored] = deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
