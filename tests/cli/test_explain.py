"""Overlays of one's own pictures, without a data set."""

import numpy as np
import pytest
import torch
from PIL import Image

from gradcam_bench import api
from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.cli import explain
from gradcam_bench.cli.classes import class_of
from gradcam_bench.data.annotations import imagenet_classes
from gradcam_bench.data.shapes import Shapes
from gradcam_bench.errors import UserError
from gradcam_bench.run.explain import Explainer, likeliest

NAMES = tuple(imagenet_classes().values())


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes = Shapes(split="test", size=96, length=2, seed=0, mode="single")
    (tmp_path / "photos").mkdir()
    for index, name in enumerate(("first.jpg", "second.png")):
        scenes[index].image.resize((180, 120)).save(tmp_path / "photos" / name, quality=95)
    return scenes


def test_one_picture_gives_one_overlay_and_the_five_likeliest_classes(pictures, tmp_path, capsys):
    explain.main(["photos/second.png", "model=tiny_resnet"])
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "photos/second.png"
    shares = [float(line.split("%")[0]) for line in told[1:6]]
    assert shares == sorted(shares, reverse=True)
    assert told[1].endswith(f"{pictures.class_names[pictures[1].label]}  <- explained")
    assert told[6:] == ["  explained/second.grad_cam.layer4.png"]
    written = [path.name for path in (tmp_path / "explained").iterdir()]
    assert written == ["second.grad_cam.layer4.png"]
    with Image.open("explained/second.grad_cam.layer4.png") as written_picture:
        assert written_picture.size == (180, 120)


def test_a_folder_gives_every_picture_method_and_layer_and_a_contact_sheet(pictures, tmp_path):
    words = ["photos", "methods=[grad_cam,layer_cam]", "layers=[layer3,layer4]", "output_dir=out"]
    explain.main(words)
    cells = [f"{m}.{layer}" for m in ("grad_cam", "layer_cam") for layer in ("layer3", "layer4")]
    expected = {f"{name}.{cell}.png" for name in ("first", "second") for cell in cells}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*expected, "contact_sheet.png"}
    with Image.open("out/contact_sheet.png") as sheet:
        assert sheet.size == (5 * 264 + 8, 2 * (171 + 28) + 8)  # the picture and four maps


def test_the_map_is_that_of_gradcam_for_the_class_asked_for(pictures):
    config, _ = api.compose(["methods=[grad_cam]"])
    explainer = Explainer(config)
    found = explainer(pictures[0].image, class_idx=3)
    model = explainer.model
    pixels = torch.from_numpy(np.array(pictures[0].image)).permute(2, 0, 1)
    img = model.preprocessing.normalize(pixels[None])[0]
    expected = GradCAM(model.network, "layer4").generate(img, 3)
    np.testing.assert_allclose(found.maps[("grad_cam", "layer4")], expected, atol=1e-6)
    assert found.class_idx == 3
    with torch.no_grad():
        answer = model.network(img[None])[0].softmax(0)
    np.testing.assert_allclose(found.probabilities, answer, atol=1e-6)
    assert likeliest(found.probabilities)[0][0] == int(answer.argmax())


def test_a_center_crop_draws_only_what_the_network_saw(pictures):
    config, _ = api.compose(["methods=[grad_cam]", "geometry=center_crop"])
    found = Explainer(config)(Image.new("RGB", (300, 100), "white"))
    assert found.view.size == (100, 100)


def test_pictures_of_one_name_keep_their_overlays_apart(tmp_path):
    for folder, name in (("a", "x.png"), ("b", "x.png"), ("b", "x.jpg")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / folder / name)
    assert list(explain.read_request([str(tmp_path / "b")]).pictures) == ["x.jpg", "x.png"]
    both = explain.read_request([str(tmp_path / "a"), str(tmp_path / "b")])
    assert list(both.pictures) == ["a_x.png", "b_x.jpg", "b_x.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "explain expects a picture or a folder"),
        (["nowhere.jpg"], "There is no file or folder nowhere.jpg"),
        (["photos", "dataset=imagenet"], "explain takes no key 'dataset'"),
        (["photos", "clas_idx=3"], "Nearest: class_idx"),
        (["photos", "+foo=1"], "explain takes no key"),
        (["photos", "model.foo=1"], "There is no key 'model.foo'"),
        (["photos", "--fast"], "explain has no option --fast"),
        (["photos", "layers=[layr4]"], "Nearest: layer4"),
        (["photos", "methods=[random]"], "explain draws no controls"),
        (["photos", "class_idx=dics"], "Nearest: disc"),
        (["photos", "class_idx=8"], "class_idx expects 0 to 7"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(pictures, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        explain.main(words)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_broken_picture_does_not_end_the_others(pictures, tmp_path, capsys):
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 of 3 pictures could not be explained.*broken\.jpg"):
        explain.main(["photos"])
    assert len(list((tmp_path / "explained").glob("*.layer4.png"))) == 2
    assert "broken.jpg cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "index"),
    [("281", 281), ("tabby", 281), ("Tiger Cat", 282), ("tench", 0), ("goldfis", 1), ("ox", 345)],
)
def test_a_class_is_found_by_number_name_word_or_part(asked, index):
    assert class_of(asked, NAMES) == index


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("cat", "7 classes are called 'cat': 281 tabby, 282 tiger cat, .*class_idx=NUMBER"),
        ("goldfsh", "No class is called 'goldfsh'. Nearest: goldfish"),
        ("", "No class is called ''"),
        ("1000", "class_idx expects 0 to 999"),
        ("-1", "class_idx expects 0 to 999"),
    ],
)
def test_a_class_that_is_none_or_several_is_told(asked, message):
    with pytest.raises(UserError, match=message):
        class_of(asked, NAMES)


def test_every_class_of_imagenet_is_found_by_its_first_name_where_no_other_has_it():
    first = [name.split(", ")[0].lower() for name in NAMES]
    for index, name in enumerate(first):
        if first.count(name) == 1:
            assert class_of(name, NAMES) == index
        else:
            with pytest.raises(UserError, match="2 classes are called"):
                class_of(name, NAMES)
