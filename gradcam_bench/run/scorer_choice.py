"""One scorer for a whole run: chosen before the run is begun, recorded, kept ever after.

Scorers agree to about 1e-5 of a probability, which is more than nothing: a part must not depend on
which shard, which resume or which machine computed it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.scorers import Scorer
from gradcam_bench.store.parts import read_run

RECORD = ("scorer", "scorer_because")
"""The keys of run.json: the scorer's name, and what decided."""

Make = Callable[[str], Scorer]  # from one of scoring.SCORERS


def choose(
    directory: Path, provenance: dict[str, Any], make: Make, choice: str, because: str
) -> Scorer | None:
    """Choose the scorer of a run that nobody has begun yet; otherwise take the record over.

    Args:
        directory: of the run, which need not exist.
        provenance: the content of a new run.json; gains the record.
        make: makes a scorer.
        choice: the config's `scoring`.
        because: what decides beside it, for the record.

    Returns:
        The scorer, or None where the run was begun before.

    Raises:
        UserError: as `scoring.make_scorer`.
    """
    begun = _begun(directory, provenance["config_hash"])
    if begun is None:
        scorer = make(choice)
        provenance |= dict(zip(RECORD, (scorer.name, f"scoring={choice}, {because}"), strict=True))
        return scorer
    provenance |= {key: begun[key] for key in RECORD if key in begun}
    return None


def keep(
    directory: Path, run: dict[str, Any], make: Make, choice: str, chosen: Scorer | None
) -> Scorer:
    """Return the scorer that the run records, once its folder is this run's.

    Args:
        directory: of the run; run.json is there, by this process or by another that was faster.
        run: the content of run.json as this process will write it; gains the record.
        make: makes a scorer.
        choice: the config's `scoring`.
        chosen: by `choose`.

    Raises:
        UserError: another scorer is asked for, or the recorded one cannot be had here.
    """
    record = read_run(directory)
    recorded = record.get("scorer")
    if recorded is None:  # begun by a version that recorded it at the end
        scorer = chosen or make(choice)
        run["scorer"] = scorer.name
        return scorer
    run |= {key: record[key] for key in RECORD if key in record}
    if choice not in ("auto", recorded):
        raise UserError(
            f"{directory} was begun with the scorer {recorded}, which all its parts share, but "
            f"scoring={choice} is asked for; continue with scoring=auto, or choose another "
            "output_dir=."
        )
    if chosen is not None and chosen.name == recorded:
        return chosen
    try:
        return make(recorded)
    except UserError as error:
        raise UserError(
            f"{directory} was begun with the scorer {recorded}, which all its parts share and "
            f"which cannot be had here: {error} Or compute the whole run in another output_dir=."
        ) from error


def _begun(directory: Path, config_hash: str) -> dict[str, Any] | None:
    """Return run.json of this run, or None where it is missing, broken or another run's."""
    try:
        stored = read_run(directory)
    except UserError:
        return None
    return stored if stored.get("config_hash") == config_hash else None
