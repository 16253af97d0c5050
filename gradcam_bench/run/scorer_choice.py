"""One scorer for a whole run: chosen before the run begins, recorded, used for every part.

Probabilities of different scorers differ by up to about 1e-5. With one scorer, a part does not
depend on the shard, the resumed process or the machine that computed it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.scorers import Scorer
from gradcam_bench.names import Scoring
from gradcam_bench.store.parts import read_run, same_config

RECORD = ("scorer", "scorer_because")
"""The keys of run.json: the scorer's name, and what decided."""

Make = Callable[[str], Scorer]  # from a name of `names.Scoring`


@dataclass
class ScorerChoice:
    """How one run gets its scorer.

    Attributes:
        directory: the run's output folder, which need not exist yet.
        make: makes a scorer by its name.
        asked: the config's `scoring`.
        because: the other facts that decide about the scorer, as text for run.json.
        made: the scorer that `before_the_run` made; None where it made none.
    """

    directory: Path
    make: Make
    asked: str
    because: str
    made: Scorer | None = None

    def before_the_run(self, provenance: dict[str, Any]) -> None:
        """Choose the scorer of a run that no process has begun; otherwise copy the stored record.

        Args:
            provenance: the content of a new run.json; the keys of `RECORD` are added to it.

        Raises:
            UserError: as `scorers.make_scorer`.
        """
        begun = _begun(self.directory, provenance)
        if begun is None:
            self.made = self.make(self.asked)
            record = (self.made.name, f"scoring={self.asked}, {self.because}")
            provenance |= dict(zip(RECORD, record, strict=True))
        else:
            provenance |= {key: begun[key] for key in RECORD if key in begun}

    def of_the_run(self, run: dict[str, Any]) -> Scorer:
        """Return the scorer that the run records, once its folder is this run's.

        Args:
            run: the content of run.json as this process will write it; the keys of `RECORD` are
                added to it. The file exists: this process or a faster one has made it.

        Raises:
            UserError: another scorer is asked for, or the recorded one cannot be used here.
        """
        record = read_run(self.directory)
        recorded = record.get("scorer")
        if recorded is None:  # begun by a version that recorded it at the end
            scorer = self.made or self.make(self.asked)
            run["scorer"] = scorer.name
            return scorer
        run |= {key: record[key] for key in RECORD if key in record}
        if self.asked not in (Scoring.auto, recorded):
            raise UserError(
                f"{self.directory} was begun with the scorer {recorded}, which all its parts "
                f"share, but scoring={self.asked} is asked for; continue with scoring=auto, or "
                "choose another output_dir=."
            )
        if self.made is not None and self.made.name == recorded:
            return self.made
        try:
            return self.make(recorded)
        except UserError as error:
            raise UserError(
                f"{self.directory} was begun with the scorer {recorded}, which all its parts "
                f"share and which cannot be had here: {error} Or compute the whole run in "
                "another output_dir=."
            ) from error


def _begun(directory: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    """Return run.json of this run, or None where it is missing, broken or another run's."""
    try:
        stored = read_run(directory)
    except UserError:
        return None
    return stored if same_config(stored, run) else None
