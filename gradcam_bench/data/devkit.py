"""Labels from the official devkit, whose MATLAB file is read in a process of its own.

scipy's reader of MATLAB files is compiled code that trusts its input: a damaged meta.mat can end
the process that reads it, or ask for more memory than there is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gradcam_bench.data.regular_files import read_lines, read_regular
from gradcam_bench.errors import UserError, brief

MAX_META_BYTES = 2**26  # the official file takes 0.2 MB
MAX_SECONDS = 120  # importing scipy from a slow disk is nearly all of it
_CHILD = "from gradcam_bench.data.devkit import print_synsets; print_synsets()"
_MAX_MEMORY = 2**32  # of addresses, most of which numerical libraries reserve and do not use


def print_synsets() -> None:
    """Print ILSVRC2012_ID -> wnid, as JSON, of the meta.mat on standard input."""
    _limit_this_process()
    import io

    import numpy as np
    from scipy.io import loadmat

    content = loadmat(io.BytesIO(sys.stdin.buffer.read()), squeeze_me=True)
    synsets = np.atleast_1d(content["synsets"])
    print(json.dumps({int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}))


def _limit_this_process() -> None:
    """Bound what this process may take; where the system cannot, its parent's clock remains."""
    try:
        import resource
    except ImportError:
        return
    for name, most in (
        (resource.RLIMIT_AS, _MAX_MEMORY),
        (resource.RLIMIT_CPU, MAX_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, allowed = resource.getrlimit(name)
        soft = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(name, (soft, allowed))


def _read_synsets(meta: Path) -> dict[int, str]:
    """Return ILSVRC2012_ID -> wnid.

    Raises:
        OSError, ValueError: the file cannot be read, in words.
    """
    found = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=read_regular(meta, limit=MAX_META_BYTES),
        capture_output=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "OPENBLAS_NUM_THREADS": "1",
        },
        timeout=MAX_SECONDS,
        check=False,
    )
    if found.returncode < 0:
        raise ValueError(f"its reader was ended by signal {-found.returncode}")
    if found.returncode:
        lines = found.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ValueError(brief(lines[-1]))
    return {int(number): wnid for number, wnid in json.loads(found.stdout).items()}


def read_devkit(folder: Path) -> list[str]:
    """Read the wnids of validation images 1, 2, ... from the data folder of the official devkit.

    The ground truth file holds one ILSVRC2012_ID a line; meta.mat says which wnid that is. Both
    are believed whole or not at all: a line that is lost would move the labels of all that follow.

    Raises:
        UserError: meta.mat is missing or broken, or an id is not in it.
    """
    meta, truth = folder / "meta.mat", folder / "ILSVRC2012_validation_ground_truth.txt"
    fix = "extract ILSVRC2012_devkit_t12.tar.gz again, or remove it to take labels from the XMLs"
    try:
        wnid_of = _read_synsets(meta)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{meta} cannot be read ({brief(error)}); {fix}") from error
    try:
        return [wnid_of[int(line)] for line in read_lines(truth)]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{truth} has a label that is not in meta.mat ({brief(error)}); {fix}"
        ) from error
