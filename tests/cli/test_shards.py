"""Which shard a process computes, told by what started it."""

import pytest

from gradcam_bench.cli.shards import with_own_shard
from gradcam_bench.errors import UserError

AUTO = ["model=vgg16", "shard.index=auto"]
ARRAY = {
    "SLURM_ARRAY_TASK_ID": "14",
    "SLURM_ARRAY_TASK_MIN": "10",
    "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_COUNT": "5",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "1",
}


@pytest.mark.parametrize(
    ("environment", "index", "count"),
    [
        (ARRAY, 2, 5),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, 3, 4),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 1, 2),
        ({"RANK": "7", "WORLD_SIZE": "8"}, 7, 8),
    ],
)
def test_index_and_count_come_from_the_scheduler(environment, index, count):
    words = ["model=vgg16", f"shard.index={index}", f"shard.count={count}"]
    assert with_own_shard(AUTO, environment) == words


def test_a_count_that_is_given_stays():
    words = with_own_shard([*AUTO, "shard.count=9"], {"PBS_ARRAY_INDEX": "5"})
    assert words == ["model=vgg16", "shard.index=5", "shard.count=9"]


def test_without_a_scheduler_or_a_count_it_is_told_what_to_give():
    with pytest.raises(UserError, match=r"one of these started: a Slurm array, .*shard\.count=N"):
        with_own_shard(AUTO, {})
    with pytest.raises(UserError, match=r"does not tell how many .* give shard\.count=N"):
        with_own_shard(AUTO, {"PBS_ARRAY_INDEX": "5"})


def test_a_command_without_auto_is_left_alone():
    assert with_own_shard(["shard.index=1"], ARRAY) == ["shard.index=1"]
