"""The bookkeeping of scripts/benchmark_speed.py and the peers' results; no test asserts a time."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from repository import ROOT
from toys import Residual

from gradcam_bench import GradCAM
from gradcam_bench.errors import UserError


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import benchmark_speed

        yield benchmark_speed
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def bench(script, repeats=3):
    return script.Bench([], torch.device("cpu"), repeats, [])


def test_every_round_runs_every_contender_once_and_ours_is_the_unit(script, monkeypatch):
    called = []
    found = bench(script)
    monkeypatch.setattr(script.Bench, "time", lambda self, call: call())
    seconds = {"ours": iter([9, 2.0, 4.0, 3.0]), "other": iter([9, 8.0, 8.0, 9.0])}

    def contender(name):
        def call():
            called.append(name)
            return next(seconds[name])

        return call

    contenders = {name: contender(name) for name in seconds}
    found.compare("maps", "case", contenders, work={"other": 0.5}, difference=1e-6)
    assert called == ["ours", "other"] * 4  # the first round warms up
    ours, other = found.lines
    assert (ours["seconds"], ours["times_ours"], ours["difference"]) == (3.0, 1.0, 1e-6)
    # 8/0.5/2, 8/0.5/4, 9/0.5/3 in the three rounds
    assert (other["seconds"], other["times_ours"]) == (8.0, 6.0)
    assert np.isnan(other["difference"])


def test_a_section_measured_again_replaces_its_own_lines_alone(script, tmp_path):
    for section, case in (("layers", "old"), ("maps", "kept"), ("layers", "new")):
        found = bench(script, repeats=1)
        found.compare(section, case, {"ours": lambda: None})
        script.write(tmp_path, section, found)
    table = pd.read_csv(tmp_path / "speed.csv")
    assert table[["section", "case"]].to_numpy().tolist() == [["maps", "kept"], ["layers", "new"]]


def test_unknown_sections_are_refused(script):
    with pytest.raises(UserError, match=r"some of them.*got sections=mops"):
        script.main(["sections=mops"])


@pytest.mark.filterwarnings("ignore")
def test_the_packages_are_used_so_that_they_answer_as_we_do(script):
    network = Residual().eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([1, 2])
    ours = GradCAM(network, "last_relu").generate(x, classes).numpy()
    for name, call in script.speed_peers.maps(network, "last_relu", x, classes).items():
        found = np.asarray(call())
        assert found.shape == ours.shape
        # grad-cam and torchcam normalise by the range before they upsample: same shape of a map
        for a, b in zip(found, ours, strict=True):
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999, name
