import numpy as np
import pytest
import torch
from toys import Residual

from gradcam_bench.cam.controls import center_map
from gradcam_bench.errors import UserError
from gradcam_bench.localization.boxes import iou
from gradcam_bench.run import randomization


def changed(a, b):
    other = b.state_dict()
    return {k.rpartition(".")[0] for k, v in a.state_dict().items() if not torch.equal(v, other[k])}


def test_layers_go_from_the_output_to_the_input():
    assert randomization.weight_layers(Residual()) == ["fc", "conv2", "conv1", "stem"]


def test_cascading_randomises_a_layer_and_all_behind_it():
    network = Residual()
    steps = dict(randomization.variants(network, mode="cascading", seed=0))
    assert list(steps) == ["original", "fc", "conv2", "conv1", "stem"]
    assert steps["original"] is network
    assert changed(network, steps["fc"]) == {"fc"}
    assert changed(network, steps["conv1"]) == {"fc", "conv2", "conv1"}


def test_independent_randomises_one_layer():
    network = Residual()
    steps = dict(randomization.variants(network, mode="independent", seed=0))
    assert changed(network, steps["conv1"]) == {"conv1"}


def test_new_weights_depend_on_seed_and_layer_only_and_leave_the_global_generator():
    network = Residual()
    state = torch.random.get_rng_state()
    a = randomization.randomized(network, ["conv1"], seed=0)
    b = randomization.randomized(network, ["fc", "conv1"], seed=0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(a.conv1.weight, b.conv1.weight)
    other = randomization.randomized(network, ["conv1"], seed=1)
    assert not torch.equal(a.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize("seed", [0, 1, 2, 17])
@pytest.mark.parametrize("name", ["tiny_inception", "tiny_resnet"])
def test_no_two_layers_share_a_draw(name, seed):
    from gradcam_bench.models.zoo import zoo_model

    network = zoo_model(name=name).network
    names = randomization.weight_layers(network)
    new = randomization.randomized(network, names, seed=seed)
    weights = {n: new.get_submodule(n).weight.detach().flatten() for n in names}
    assert len(weights) > 10
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            # Layers of another shape would share the beginning of the stream, up to its scale.
            a, b = (weights[n][:100] for n in (one, other))
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.6, (one, other)


def test_similarity_is_one_for_the_same_map_and_minus_one_for_its_opposite():
    maps = np.random.default_rng(0).random((3, 16, 16)).astype(np.float32)
    ranks, structures = randomization.similarity(maps, maps)
    assert ranks == pytest.approx(1)
    assert structures == pytest.approx(1)
    ranks, structures = randomization.similarity(1 - maps, maps)
    assert ranks == pytest.approx(-1)
    assert (structures < 0).all()
    ranks, _ = randomization.similarity(np.zeros_like(maps), maps)
    assert np.isnan(ranks).all()


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="cascading, independent"):
        list(randomization.variants(Residual(), mode="all", seed=0))


def test_maps_of_a_randomised_network_fall_to_the_controls_level():
    from gradcam_bench import api
    from gradcam_bench.config import bind
    from gradcam_bench.data.shapes import Shapes
    from gradcam_bench.faithfulness.curves import Options, insertion_auc
    from gradcam_bench.faithfulness.scorers import TorchScorer
    from gradcam_bench.faithfulness.target_scores import TargetScores
    from gradcam_bench.models.zoo import zoo_model

    config, _ = api.compose(["protocol=gradcam2017"])
    protocol = bind(config.protocols.gradcam2017, "protocol")()
    model = zoo_model(name="tiny_resnet")
    scores = TargetScores(TorchScorer(model.network))
    check = randomization.randomization_check(
        model,
        Shapes(length=24),
        protocol,
        insertion=insertion_auc(scores, model.preprocessing, Options(steps=6)),
    )
    mean = check.groupby("step").mean(numeric_only=True)
    controls = check[check.step < 0].groupby("layer").mean(numeric_only=True)
    first, last = mean.loc[0], mean.loc[mean.index.max()]
    assert first.spearman == first.ssim == 1
    assert last.spearman < 0.5
    for score in ("box_iou", "energy_in_box", "insertion_auc"):
        assert first[score] > controls[score].max() + 0.05
        assert last[score] < (first[score] + controls[score].max()) / 2


@pytest.mark.parametrize("threshold", [0.15, 0.5, 0.8])
def test_center_scores_what_its_closed_form_says_on_known_boxes(threshold):
    # The foreground at t is the centred square of half-width about 1 - t (of half the side):
    # the IoU with a centred true square of relative side s is (min / max)^2.
    size = 200
    heatmap = center_map(1, (size, size))[0].numpy()
    ys, xs = np.nonzero(heatmap >= threshold * heatmap.max())
    box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], dtype=float)
    for side in (0.3, 0.6, 0.9):
        half = side * size / 2
        truth = np.array([[size / 2 - half, size / 2 - half, size / 2 + half, size / 2 + half]])
        small, large = sorted((side, 1 - threshold))
        assert iou(box, truth)[0, 0] == pytest.approx((small / large) ** 2, abs=0.03)
