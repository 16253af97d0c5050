import pytest
import torch

from gradcam_bench import api
from gradcam_bench.cam.upsampling import normalize_by_max, upsample
from gradcam_bench.config import bind
from gradcam_bench.run.heatmaps import heatmaps


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "to"), [((7, 7), (224, 224)), ((9, 5), (20, 31)), ((1, 1), (4, 6))]
)
def test_upsampling_is_torchs_interpolation(mode, size, to):
    maps = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(
        maps[:, None], size=to, mode=mode, align_corners=False
    )[:, 0]
    found = upsample(maps, to, mode)
    assert torch.allclose(found, expected, atol=2e-6)
    assert torch.equal(found[1:2], upsample(maps[1:2], to, mode))  # whatever the batch


def test_flat_maps_are_zeros_under_min_max_though_bicubic_rounds():
    config, _ = api.compose(["protocol=[wsol_v1]"])
    protocol = bind(config.protocols.wsol_v1, "protocol")()
    raw = torch.tensor([0.1, -3.3, 0.0])[:, None, None].expand(3, 7, 7)
    assert upsample(raw, (224, 224), "bicubic").std((1, 2)).max() > 0
    assert not heatmaps(raw, (224, 224), protocol).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_undefined_and_not_empty(value):
    maps = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    maps[0, 2, 2] = value
    found = normalize_by_max(maps)
    assert not torch.isfinite(found[0]).all()
    assert torch.equal(found[1], maps[1] / maps[1].max())
