"""`shard.index=auto`: which of the processes that a scheduler or a launcher started this one is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from gradcam_bench.errors import UserError

# The variables with this process's number, how many there are, the first number, and the step.
_SCHEDULERS = {
    "a Slurm array": (
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT",
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_STEP",
    ),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "", ""),
    "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "", ""),
    "torchrun": ("RANK", "WORLD_SIZE", "", ""),
    "a PBS array": ("PBS_ARRAY_INDEX", "", "", ""),
}


def with_own_shard(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the words of a command with `shard.index=auto` replaced by this process's number.

    `shard.count` is added where it is not given and the scheduler tells it.

    Raises:
        UserError: no scheduler is found, or it does not tell how many processes there are.
    """
    if "shard.index=auto" not in words:
        return list(words)
    for scheduler, (own, count, first, step) in _SCHEDULERS.items():
        if own not in environment:
            continue
        number = int(environment[own]) - int(environment.get(first, "0"))
        index = number // int(environment.get(step, "1"))
        found = [f"shard.index={index}" if w == "shard.index=auto" else w for w in words]
        if any(word.startswith("shard.count=") for word in words):
            return found
        if count not in environment:
            raise UserError(
                f"shard.index=auto: {scheduler} does not tell how many processes there are; give "
                "shard.count=N."
            )
        return [*found, f"shard.count={environment[count]}"]
    raise UserError(
        f"shard.index=auto expects a process that one of these started: {', '.join(_SCHEDULERS)}; "
        "elsewhere give shard.index=I shard.count=N."
    )
