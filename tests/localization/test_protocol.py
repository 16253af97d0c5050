"""The named protocols as files, and every mistake a protocol file can hold."""

import dataclasses
import inspect

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from repository import ROOT

from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import CHOICES, Protocol

CONF = ROOT / "conf"
NAMES = sorted(path.stem for path in (CONF / "protocol").glob("*.yaml"))
VALID = {
    "name": "toy",
    "source": "test",
    "relu": "before",
    "upsampling": "bilinear",
    "normalization": "max",
    "quantize": False,
    "threshold_rule": "fixed",
    "comparison": ">=",
    "component": "largest",
    "finder": "labels",
    "connectivity": 8,
    "box": "half_open",
    "iou": "half_open",
    "ground_truth": "float",
    "iou_levels": [0.5],
    "threshold": 0.15,
}


def composed(*names):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[f"+protocol=[{','.join(names)}]"])
    return config.protocols


@pytest.mark.parametrize("name", NAMES)
def test_every_file_binds_to_the_signature_and_names_every_field(name):
    node = composed(name)[name]
    assert node["_target_"] == "gradcam_bench.localization.protocol.Protocol"
    assert set(node) - {"_target_"} == set(inspect.signature(Protocol).parameters)
    assert instantiate(node).name == name


def test_files_merge_into_one_mapping():
    assert list(composed("gradcam2017", "wsol_v1")) == ["gradcam2017", "wsol_v1"]


def test_files_hold_what_the_publications_fix():
    built = {name: instantiate(composed(name)[name]) for name in NAMES}
    assert {name: p.threshold for name, p in built.items()} == {
        "gradcam2017": 0.15,
        "cam2016": 0.20,
        "wsol_v1": None,
        "wsol_v2": None,
    }
    first, second = built["wsol_v1"], built["wsol_v2"]
    assert (first.iou_levels, second.iou_levels) == ((0.5,), (0.3, 0.5, 0.7))
    assert (first.component, second.component) == ("largest", "all")
    same = dataclasses.replace(
        second, name="wsol_v1", source=first.source, component="largest", iou_levels=(0.5,)
    )
    assert same == first


def test_swept_thresholds_are_the_multiples_of_the_interval_below_one():
    swept = instantiate(composed("wsol_v1")["wsol_v1"])
    np.testing.assert_array_equal(swept.thresholds(), np.arange(0, 1, 0.001))
    assert len(swept.thresholds()) == 1000
    assert swept.swept


def test_a_fixed_threshold_is_the_only_one():
    protocol = Protocol(**VALID)
    assert protocol.thresholds().tolist() == [0.15]
    assert not protocol.swept


def test_a_protocol_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Protocol(**VALID).threshold = 0.2


@pytest.mark.parametrize("field", CHOICES)
def test_a_value_outside_its_choices_is_refused_with_the_choices(field):
    with pytest.raises(UserError) as error:
        Protocol(**(VALID | {field: "typo"}))
    message = str(error.value)
    assert message.startswith(f"protocol 'toy': {field}: expected one of ")
    assert "got 'typo'" in message
    assert all(repr(choice) in message for choice in CHOICES[field])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "expected a name"),
        ({"quantize": 1}, "quantize: expected one of True, False, got 1"),
        ({"connectivity": True}, "connectivity: expected one of 4, 8, got True"),
        ({"iou_levels": []}, "iou_levels: expected 1 to 8 ascending numbers in (0, 1], got []"),
        ({"iou_levels": [0.5, 0.3]}, "ascending numbers in (0, 1], got [0.5, 0.3]"),
        ({"iou_levels": [0.0]}, "ascending numbers in (0, 1], got [0.0]"),
        ({"iou_levels": [0.1 * i for i in range(1, 10)]}, "expected 1 to 8 ascending numbers"),
        ({"iou_levels": 0.5}, "ascending numbers in (0, 1], got 0.5"),
        ({"iou_levels": ["half"]}, "ascending numbers in (0, 1], got ['half']"),
        ({"threshold": "low"}, "threshold: expected a share of the maximum in [0, 1), got 'low'"),
        ({"threshold": 1.0}, "threshold: expected a share of the maximum in [0, 1), got 1.0"),
        ({"threshold": -0.1}, "threshold: expected a share of the maximum in [0, 1), got -0.1"),
        ({"threshold": None}, "threshold: expected a number, because threshold_rule is 'fixed'"),
        ({"interval": 0.1}, "interval: expected null, because the threshold is fixed, got 0.1"),
        ({"threshold_rule": "oracle"}, "threshold: expected null: an oracle threshold is swept"),
        (
            {"threshold_rule": "oracle", "threshold": None},
            "interval: expected a step, because of 'oracle', got None",
        ),
        (
            {"threshold_rule": "oracle", "threshold": None, "interval": 0.0},
            "interval: expected a step in [1e-6, 1), got 0.0",
        ),
        (
            {"threshold_rule": "oracle", "threshold": None, "interval": 0.1},
            "quantize: expected True: thresholds are swept over 8-bit levels",
        ),
        (
            {"normalization": "none", "quantize": True},
            "normalization: expected 'max' or 'minmax', to quantize [0, 1], got 'none'",
        ),
        (
            {"finder": "contours", "connectivity": 4},
            "connectivity: expected 8, as contours have, got 4",
        ),
    ],
)
def test_values_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError) as error:
        Protocol(**(VALID | changes))
    assert message in str(error.value)
