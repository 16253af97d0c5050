"""Everything that is derived from one stored run or several, each thing once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pandas as pd

from gradcam_bench.analysis import best, curves, published
from gradcam_bench.analysis.best import Best
from gradcam_bench.analysis.coincidence import Coincidence, coinciding
from gradcam_bench.analysis.drawn_cells import Drawn, drawn_cells
from gradcam_bench.analysis.failures import Failures, failures_of
from gradcam_bench.analysis.metrics import metric_of, metrics_with
from gradcam_bench.analysis.oracle_accuracy import oracle_differences, oracles
from gradcam_bench.analysis.stored_run import Run, joined_summary, load_runs
from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS
from gradcam_bench.store.rows import cells

__all__ = ["Analysis", "Failures", "analyse"]

Answer = TypeVar("Answer")


def _by_run(
    answer: Callable[[Analysis, Run], Answer],
) -> cached_property[dict[str, Answer]]:
    """Turn a method that answers something on one run into the answers on all, by run name.

    Those of several runs are the ones that the analysis of each run alone has, so that none is
    computed twice.
    """

    def answers(self: Analysis) -> dict[str, Answer]:
        if self.several:
            alone = {name: getattr(one, answer.__name__) for name, one in self.alone.items()}
            return {name: found[name] for name, found in alone.items()}
        (run,) = self.runs
        return {run.name: answer(self, run)}

    answers.__doc__ = answer.__doc__
    return cached_property(answers)


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
    def alone(self) -> dict[str, Analysis]:
        """The analysis of each run by itself, by the run's name; of one run it is this one."""
        if not self.several:
            return {self.runs[0].name: self}
        return {run.name: Analysis((run,)) for run in self.runs}

    # What is said of all runs together.

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The tidy summary; of several runs, below one another, with a column `run` in front."""
        return joined_summary(self.runs) if self.several else self.runs[0].summary

    @cached_property
    def best(self) -> Best | None:
        """The best cell of all runs and its ties; None without a score that all runs share."""
        try:
            found = best.best_cell(self.runs)
        except UserError:  # controls only, or no common score
            return None
        compared = self.compared(found.metric.name)
        return best.with_ties(found, compared, several=self.several)

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
    def tests(self) -> dict[str, pd.DataFrame]:
        """Every cell against the best on common images, by tested metric (`compared`)."""
        return self._comparisons(best.metrics_to_test(self.runs))

    @cached_property
    def oracle_differences(self) -> dict[str, pd.DataFrame]:
        """Differences of accuracies at thresholds chosen on these images, by metric."""
        return self._comparisons(oracles(self.runs))

    def _comparisons(self, metrics: Sequence[str]) -> dict[str, pd.DataFrame]:
        found = {name: self.compared(name) for name in metrics}
        return {name: frame for name, frame in found.items() if len(frame)}

    @cached_property
    def papers(self) -> pd.DataFrame:
        """The comparison with published numbers, a column `run` in front; empty without any."""
        filled = {name: frame for name, frame in self.papers_of.items() if len(frame)}
        if not filled:
            return pd.DataFrame()
        joined = pd.concat(filled.values(), ignore_index=True)
        names = [name for name, frame in filled.items() for _ in range(len(frame))]
        joined.insert(0, "run", names)
        return joined

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

    # What is said of each run, by the run's name.

    @_by_run
    def best_of(self, run: Run) -> Best | None:
        """The best cell of each run and its ties within the run."""
        return self.best

    @_by_run
    def papers_of(self, run: Run) -> pd.DataFrame:
        """The published numbers of each run's network (`published.compare`)."""
        return published.compare(run.summary, run.run)

    @_by_run
    def papers_beside(self, run: Run) -> pd.DataFrame:
        """All published numbers that can stand beside each run's, of whatever network."""
        return published.compare(run.summary, run.run, any_model=True)

    @_by_run
    def coincide(self, run: Run) -> list[Coincidence]:
        """Methods of equal scores at a layer (`coincidence.coinciding`)."""
        return coinciding(run.rows)

    @_by_run
    def failures(self, run: Run) -> Failures:
        """Where each run's best cell fails; without a best cell, where its first one does."""
        cell = self.best.cell if self.best else cells(run.rows)[0]
        return failures_of(run.rows, cell, class_names=run.run.get("class_names"))

    @_by_run
    def drawn(self, run: Run) -> Drawn:
        """The cells that figures of each run draw, and how many they leave out.

        The best cell is always among them, and the first method at every layer that the run's
        config names, where it names some.
        """
        layers = (run.run.get("config") or {}).get("layers")
        named = [layers] if isinstance(layers, str) else list(layers or [])
        pairs = [cell for cell in cells(run.rows) if cell[0] not in CONTROLS]
        always = [cell for cell in pairs if cell[0] == pairs[0][0] and cell[1] in named]
        return drawn_cells(run.rows, always=[*always, *([self.best.cell] if self.best else [])])

    @_by_run
    def curves(self, run: Run) -> pd.DataFrame:
        """Mean deletion and insertion curves of the drawn cells (`curves.faithfulness_curves`)."""
        return curves.faithfulness_curves(run.rows, self.drawn[run.name].cells)

    @_by_run
    def threshold_curves(self, run: Run) -> pd.DataFrame:
        """Boxes right at every threshold of each protocol that sweeps, of the drawn cells.

        As `curves.threshold_curves` returns them, protocols below one another in the run's order.
        """
        swept = [protocol for protocol in run.protocols.values() if protocol.swept]
        return curves.threshold_curves(run.rows, self.drawn[run.name].cells, swept)

    @_by_run
    def iou_curves(self, run: Run) -> pd.DataFrame:
        """Boxes right against the IoU asked for, of the drawn cells (`curves.iou_curves`)."""
        return curves.iou_curves(run.rows, self.drawn[run.name].cells)

    @_by_run
    def distributions(self, run: Run) -> pd.DataFrame:
        """Scores of every image at the drawn cells (`curves.score_distributions`)."""
        names = metrics_with("distribution")
        return curves.score_distributions(run.rows, self.drawn[run.name].cells, names)


def analyse(directories: Sequence[str | Path | Run]) -> Analysis:
    """Read runs and return what they say.

    Args:
        directories: folders of runs, or runs as read.

    Raises:
        UserError: if no folder is given, one is given twice, or one holds no run.
    """
    return Analysis(tuple(load_runs(directories)))
