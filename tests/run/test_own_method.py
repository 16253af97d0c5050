"""A method from outside the package, in a whole run."""

import sys

import numpy as np
import pytest
import small_runs

from gradcam_bench.errors import UserError

MAP = "def my_map(activations, gradients):\n    return {}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def written(formula):
        sys.modules.pop("own_maps", None)
        (tmp_path / "own_maps.py").write_text(MAP.format(formula))
        monkeypatch.delitem(sys.modules, "own_maps", raising=False)

    return written


CHOICES = ("++dataset.length=4", "methods=[grad_cam,own_maps:my_map]", "faithfulness.enabled=false")


def test_a_users_function_is_scored_as_a_method_is_and_its_code_decides_the_run(tmp_path, write):
    folder = tmp_path / "run"
    write("(gradients.mean((2, 3), keepdim=True) * activations).sum(1)")  # Grad-CAM, written out
    done, rows = small_runs.run(folder, *CHOICES)
    assert done
    own, built_in = (rows[rows["method"] == m] for m in ("own_maps:my_map", "grad_cam"))
    assert set(own["layer"]) == set(built_in["layer"])
    np.testing.assert_allclose(small_runs.scores(own), small_runs.scores(built_in), atol=1e-5)
    write("(gradients * activations).sum(1)")
    with pytest.raises(UserError, match="method_code"):
        small_runs.run(folder, *CHOICES)


def test_a_run_without_a_users_method_keeps_the_identity_it_had(tmp_path):
    small_runs.run(tmp_path, "++dataset.length=4", "faithfulness.enabled=false")
    assert '"method_code"' not in (tmp_path / "run.json").read_text()
