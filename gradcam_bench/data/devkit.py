"""Labels from the official ILSVRC devkit, whose MATLAB file is read in a separate process.

scipy's reader of MATLAB files is compiled code that trusts its input: a damaged meta.mat can crash
the process that reads it, or make it ask for more memory than the machine has.
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
MAX_SECONDS = 120  # nearly all of which is for importing scipy from a slow disk
_CHILD = "from gradcam_bench.data.devkit import print_synsets; print_synsets()"
_MAX_MEMORY = 2**32  # bytes of address space; numerical libraries reserve much more than they use


def print_synsets() -> None:
    """Read a meta.mat from standard input and print its ILSVRC2012_ID -> wnid as JSON."""
    _limit_this_process()
    import io

    import numpy as np
    from scipy.io import loadmat

    content = loadmat(io.BytesIO(sys.stdin.buffer.read()), squeeze_me=True)
    synsets = np.atleast_1d(content["synsets"])
    print(json.dumps({int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}))


def _limit_this_process() -> None:
    """Limit the memory and the time of this process.

    Where the system cannot (Windows), only the parent's timeout remains.
    """
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
    """Return ILSVRC2012_ID -> wnid, read from meta.mat in a process of its own.

    Raises:
        OSError, ValueError: the file cannot be read; the message says why.
        subprocess.TimeoutExpired: reading it took longer than `MAX_SECONDS`.
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

    Each line of the ground truth file holds an image's ILSVRC2012_ID, whose wnid is in meta.mat.
    One broken line makes the whole file an error, because images are matched with lines by
    counting: after a lost line, every label would belong to the wrong image.

    Returns:
        The wnid of each image; that of ILSVRC2012_val_00000001 comes first.

    Raises:
        UserError: a file is missing or broken, or an id is not in meta.mat.
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
