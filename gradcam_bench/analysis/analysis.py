"""Everything that is derived from one stored run or several, each thing once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from gradcam_bench.analysis import best, curves, failures, published
from gradcam_bench.analysis.best import Best
from gradcam_bench.analysis.coincidence import Coincidence, coinciding
from gradcam_bench.analysis.drawn_cells import Drawn, drawn_cells
from gradcam_bench.analysis.metrics import metric_of, metrics_with
from gradcam_bench.analysis.oracle_accuracy import oracle_differences, oracles
from gradcam_bench.analysis.stored_run import Run, joined_summary, load_runs
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS, Cell
from gradcam_bench.store.rows import cell_rows, cells


@dataclass(frozen=True)
class Failures:
    """Where one run's best cell fails.

    Attributes:
        cell: method and layer.
        kinds: from `failures.failure_kinds`.
        groups: from `failures.error_by_group`.
        classes: from `failures.worst_classes`.
        broken: image_id and error of the examples that could not be scored.
        degenerate: ids of the images whose map is nowhere positive.
    """

    cell: Cell
    kinds: pd.DataFrame
    groups: pd.DataFrame
    classes: pd.DataFrame
    broken: pd.DataFrame
    degenerate: list[str]


@dataclass(frozen=True)
class Analysis:
    """What runs say, computed when first asked for and then kept; files and pages only format it.

    Attributes:
        runs: one or several, with different names.
    """

    runs: tuple[Run, ...]
    _compared: dict[str, pd.DataFrame] = field(default_factory=dict, compare=False, repr=False)

    @property
    def several(self) -> bool:
        """Whether there is more than one run."""
        return len(self.runs) > 1

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The tidy summary; of several runs, below one another, with a column `run` in front."""
        return joined_summary(self.runs) if self.several else self.runs[0].summary

    @cached_property
    def best(self) -> Best | None:
        """The best cell of all runs and its ties; None without a score that all runs share."""
        found = _or_none(self.runs)
        if found is None:
            return None
        compared = self.compared(found.metric.name)
        return best.with_ties(found, compared, several=self.several)

    @cached_property
    def best_of(self) -> dict[str, Best | None]:
        """The best cell of each run, by the run's name."""
        if not self.several:
            return {self.runs[0].name: self.best}
        return {run.name: self.alone[run.name].best for run in self.runs}

    @cached_property
    def alone(self) -> dict[str, Analysis]:
        """The analysis of each run by itself, by the run's name; of one run it is this one."""
        if not self.several:
            return {self.runs[0].name: self}
        return {run.name: Analysis((run,)) for run in self.runs}

    @cached_property
    def tests(self) -> dict[str, pd.DataFrame]:
        """Every cell against the best on common images, by tested metric (`compared`)."""
        found = {name: self.compared(name) for name in best.tested(self.runs)}
        return {name: frame for name, frame in found.items() if len(frame)}

    @cached_property
    def oracle_differences(self) -> dict[str, pd.DataFrame]:
        """Differences of accuracies at thresholds chosen on these images, by metric."""
        found = {name: self.compared(name) for name in oracles(self.runs)}
        return {name: frame for name, frame in found.items() if len(frame)}

    def compared(self, metric: str) -> pd.DataFrame:
        """Return every cell against the best by one metric, computed when first asked for.

        Args:
            metric: a name of the summary.

        Returns:
            The frame of `best.comparison`, or of `oracle_differences` for a metric whose threshold
            was chosen on these images; empty where nothing can be compared.
        """
        if metric not in self._compared:
            oracle = metric_of(metric).kind == "oracle"
            compare = oracle_differences if oracle else best.comparison
            self._compared[metric] = compare(self.runs, metric)
        return self._compared[metric]

    @cached_property
    def coincide(self) -> dict[str, list[Coincidence]]:
        """Methods of equal scores at a layer (`coincidence.coinciding`), by the run's name."""
        return {run.name: coinciding(run.rows) for run in self.runs}

    @cached_property
    def papers(self) -> pd.DataFrame:
        """The comparison with published numbers, a column `run` in front; empty without any."""
        frames = [published.compare(run.summary, run.run) for run in self.runs]
        named = [
            frame.assign(run=run.name)[["run", *frame.columns]]
            for run, frame in zip(self.runs, frames, strict=True)
            if len(frame)
        ]
        return pd.concat(named, ignore_index=True) if named else pd.DataFrame()

    @cached_property
    def other_networks(self) -> pd.DataFrame:
        """What papers report of other networks, beside the run of the best cell.

        Lines of `published.compare` but those of other images; empty without a best cell.
        """
        if self.best is None:
            return pd.DataFrame()
        run = self.best.run
        lines = published.compare(run.summary, run.run, any_model=True)
        return lines[~lines["comparable"].str.contains("other images")]

    @cached_property
    def failures(self) -> dict[str, Failures]:
        """Where each run's best cell fails, by the run's name."""
        return {run.name: _failures(run, self.best_of[run.name]) for run in self.runs}

    @cached_property
    def drawn(self) -> dict[str, Drawn]:
        """The cells that figures of each run draw, and how many they leave out, by run name.

        The best cell is always among them, and the first method at every layer that the run's
        config names, where it names some.
        """
        return {run.name: _drawn(run, self.best_of[run.name]) for run in self.runs}

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """Mean deletion and insertion curves of the drawn cells (`curves.faithfulness_curves`)."""
        return {
            run.name: curves.faithfulness_curves(run.rows, self.drawn[run.name].cells)
            for run in self.runs
        }

    @cached_property
    def threshold_curves(self) -> dict[str, pd.DataFrame]:
        """Boxes right at every threshold of every protocol that sweeps, by run name.

        Of the drawn cells, as `curves.threshold_curves` returns them, protocols below one another
        in the run's order.
        """
        found = {}
        for run in self.runs:
            cells_drawn = self.drawn[run.name].cells
            frames = [
                curves.threshold_curves(run.rows, cells_drawn, protocol)
                for protocol in run.protocols.values()
                if protocol.swept
            ]
            filled = [frame for frame in frames if len(frame)]
            empty = pd.DataFrame(columns=list(curves.THRESHOLD_COLUMNS))
            found[run.name] = pd.concat(filled, ignore_index=True) if filled else empty
        return found

    @cached_property
    def iou_curves(self) -> dict[str, pd.DataFrame]:
        """Boxes right against the IoU asked for, of the drawn cells (`curves.iou_curves`)."""
        return {
            run.name: curves.iou_curves(run.rows, self.drawn[run.name].cells) for run in self.runs
        }

    @cached_property
    def distributions(self) -> dict[str, pd.DataFrame]:
        """Scores of every image at the drawn cells (`curves.score_distributions`), by run name."""
        names = metrics_with("distribution")
        return {
            run.name: curves.score_distributions(run.rows, self.drawn[run.name].cells, names)
            for run in self.runs
        }

    @cached_property
    def costs(self) -> pd.DataFrame:
        """What each run cost beside the value of its best cell, by the metric that judges it.

        Columns name, metric, seconds (an image, of the whole run), value, ci_low, ci_high; a run
        without a best cell, or that does not record its seconds, has no line.
        """
        lines = []
        for run in self.runs:
            found, n = self.best_of[run.name], run.run.get("n_images")
            seconds = run.run.get("seconds")
            if found and seconds and n:
                kept = {key: found.line[key] for key in ("value", "ci_low", "ci_high")}
                metric = found.metric.name
                lines.append({"name": run.name, "metric": metric, "seconds": seconds / n} | kept)
        columns = ["name", "metric", "seconds", "value", "ci_low", "ci_high"]
        return pd.DataFrame(lines, columns=columns)


def analyse(directories: Sequence[str | Path | Run]) -> Analysis:
    """Read runs and return what they say.

    Raises:
        UserError: if no folder is given, one is given twice, or one holds no run.
    """
    return Analysis(tuple(load_runs(directories)))


def _or_none(runs: Sequence[Run]) -> Best | None:
    try:
        return best.best_cell(runs)
    except UserError:
        return None


def _drawn(run: Run, found: Best | None) -> Drawn:
    """Return the cells of a run's figures: the best and those at layers that its config names."""
    layers = (run.run.get("config") or {}).get("layers")
    asked = [layers] if isinstance(layers, str) else list(layers or [])
    pairs = [cell for cell in cells(run.rows) if cell[0] not in CONTROLS]
    always = [cell for cell in pairs if cell[0] == pairs[0][0] and cell[1] in asked]
    return drawn_cells(run.rows, always=[*always, *([found.cell] if found else [])])


def _failures(run: Run, found: Best | None) -> Failures:
    rows = run.rows
    cell = cells(rows)[0] if found is None else found.cell
    broken = rows[rows["error"].notna()] if "error" in rows else rows[:0]
    mine = cell_rows(rows, cell)
    degenerate = mine[mine["degenerate"] == 1] if "degenerate" in mine else mine[:0]
    return Failures(
        cell,
        failures.failure_kinds(rows, cell),
        failures.error_by_group(rows, cell),
        failures.worst_classes(rows, cell, class_names=run.run.get("class_names")),
        broken.drop_duplicates("image_id")[["image_id", "error"]],
        list(degenerate["image_id"]),
    )
