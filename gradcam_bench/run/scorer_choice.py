"""One scorer for a whole run: chosen before the run is begun, recorded, kept ever after.

Scorers agree to about 1e-5 of a probability, which is more than nothing: a part must not depend on
which shard, which resume or which machine computed it.
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
        directory: of the run, which need not exist yet.
        make: makes a scorer by its name.
        asked: the config's `scoring`.
        because: what decides beside it, for the record.
        made: the scorer, where `before_the_run` made one.
    """

    directory: Path
    make: Make
    asked: str
    because: str
    made: Scorer | None = None

    def before_the_run(self, provenance: dict[str, Any]) -> None:
        """Choose the scorer of a run that nobody has begun yet; otherwise take the record over.

        Args:
            provenance: the content of a new run.json; gains the record.

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
            run: the content of run.json as this process will write it; gains the record. The file
                itself is there, by this process or by another that was faster.

        Raises:
            UserError: another scorer is asked for, or the recorded one cannot be had here.
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
