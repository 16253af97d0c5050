"""A run stored when our code lay elsewhere is the same run: it is resumed and reported."""

import json

import pytest
from small_runs import run

from gradcam_bench.analysis.stored_run import load_run
from gradcam_bench.config import identity
from gradcam_bench.errors import UserError
from gradcam_bench.names import without_places
from gradcam_bench.run import loop
from gradcam_bench.store.parts import identity_hash, read_run

BARE = ("faithfulness.enabled=false", "protocol=[gradcam2017]", "methods=[grad_cam]", "gallery=0")
PLACES = {
    "zoo_model": "gradcam_bench.models.zoo_model",
    "Shapes": "gradcam_bench.data.shapes.Shapes",
    "Protocol": "gradcam_bench.protocols.Protocol",
}


def with_places(node):
    """The identity as the package of one flat folder stored it."""
    if not isinstance(node, dict):
        return node
    return {
        key: PLACES[value] if key == "_target_" else with_places(value)
        for key, value in node.items()
    }


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A shard of a run that was stored under the old places, hashed with them."""
    out = tmp_path / "out"
    told = loop.build_provenance

    def as_of_old(*arguments):
        found = told(*arguments)
        found["identity"] = with_places(found["identity"])
        found["config_hash"] = identity_hash(found["identity"])
        return found

    with monkeypatch.context() as patched:
        patched.setattr(loop, "build_provenance", as_of_old)
        run(out, *BARE, "shard.count=2", "shard.index=0")
    return out


def test_an_old_run_is_resumed_and_keeps_its_hash(old):
    before = read_run(old)
    assert before["identity"]["model"]["_target_"] == "gradcam_bench.models.zoo_model"
    stamps = {path: path.stat().st_mtime_ns for path in old.glob("scores/*")}
    done, rows = run(old, *BARE)
    assert done
    assert rows.image_id.nunique() == 10
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    after = read_run(old)
    assert after["config_hash"] == before["config_hash"]
    assert after["identity"]["model"]["_target_"] == "zoo_model"
    assert len(load_run(old).rows) == 10
    assert run(old, *BARE)[0]  # once more, now that run.json was rewritten


def test_an_old_run_of_another_config_is_refused_by_what_differs(old):
    with pytest.raises(UserError, match=r"another config \(seed: 0 there, 1 now\)"):
        run(old, *BARE, "seed=1")


def test_the_hash_of_a_config_does_not_depend_on_places():
    nodes = {"model": {"_target_": "gradcam_bench.models.zoo_model", "name": "a"}}
    moved = {"model": {"_target_": "gradcam_bench.models.zoo.zoo_model", "name": "a"}}
    assert without_places(nodes) == without_places(moved) == without_places(without_places(nodes))
    own = {"model": {"_target_": "mine.zoo_model", "name": "a"}}
    assert without_places(own) == own
    assert without_places([nodes, 1, "gradcam_bench.x"])[1:] == [1, "gradcam_bench.x"]


def test_a_choice_is_stored_as_its_word(tmp_path):
    run(tmp_path, *BARE)
    text = (tmp_path / "run.json").read_text()
    stored = json.loads(text)
    assert stored["config"]["precision"] == stored["identity"]["precision"] == "float32"
    assert stored["config"]["scoring"] == "torch"
    assert identity(stored["config"])["faithfulness"] == stored["identity"]["faithfulness"]
