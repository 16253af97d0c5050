import numpy as np
import pytest
from PIL import Image
from repository import ROOT, SHARED

from gradcam_bench.data.annotations import imagenet_index, read_box_table
from gradcam_bench.data.imagenet import ImageNet
from gradcam_bench.data.imagenette import Imagenette
from gradcam_bench.errors import ExampleError, UserError

REAL = SHARED / "data"
PACKAGED = ROOT / "gradcam_bench" / "data" / "imagenette_boxes.csv"
# two images of the packaged file, one of them in Imagenette's train folder
FISH, PLAYER = "ILSVRC2012_val_00000293", "ILSVRC2012_val_00000537"
HEADER = "image_id,wnid,width,height,xmin,ymin,xmax,ymax\n"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "imagenette2-160"
    for name, size in {
        f"val/n01440764/{FISH}": (250, 150),  # 500 x 375 originally: scaled by 1/2 and 2/5
        f"train/n03000684/{PLAYER}": (334, 500),
        "train/n01440764/n01440764_10026": (200, 160),
        "val/n01440764/ILSVRC2012_val_99999999": (200, 160),
    }.items():
        path = folder / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (9, 99, 199)).save(path)
    return folder


def table(path, *rows):
    path.write_text(HEADER + "\n".join(rows) + "\n")
    return str(path)


def test_the_validation_images_come_with_scaled_boxes_and_imagenet_labels(root):
    data = Imagenette(root=str(root))
    assert list(data.image_ids) == [FISH, PLAYER]
    fish, player = data[0], data[1]
    assert (fish.image_id, fish.label) == (FISH, 0)
    assert data.class_names[player.label] == "chain saw"
    assert player.label == imagenet_index()["n03000684"]
    np.testing.assert_allclose(
        fish.boxes, [[87.5, 73.6, 249.5, 136.4], [118, 51.6, 249, 112]], atol=1e-12
    )
    assert len(data.class_names) == 1000


def test_boxes_at_original_size_are_as_written(root):
    np.testing.assert_array_equal(Imagenette(root=str(root))[1].boxes[0], [146, 220, 305, 281])


def test_the_packaged_file_has_all_500_images():
    annotations = read_box_table(PACKAGED)
    assert len(annotations) == 500
    assert sum(len(a.boxes) for a in annotations.values()) == 813
    assert len({a.wnids[0] for a in annotations.values()}) == 10


def test_another_box_file_replaces_the_packaged_one(root, tmp_path):
    boxes = table(tmp_path / "b.csv", f"{FISH},n01440764,250,150,1,2,30,40")
    data = Imagenette(root=str(root), boxes=boxes)
    assert list(data.image_ids) == [FISH]
    np.testing.assert_array_equal(data[0].boxes, [[1, 2, 30, 40]])


def test_the_fingerprint_changes_with_boxes_and_images(root, tmp_path):
    first = Imagenette(root=str(root))
    assert first.fingerprint() == Imagenette(root=str(root)).fingerprint()
    seen = {first.fingerprint()}
    for box in ("1,2,30,40", "1,2,30,41"):
        boxes = table(tmp_path / "b.csv", f"{FISH},n01440764,250,150,{box}")
        seen.add(Imagenette(root=str(root), boxes=boxes).fingerprint())
    Image.new("RGB", (320, 400)).save(root / "val/n01440764" / f"{FISH}.JPEG")
    seen.add(Imagenette(root=str(root), boxes=boxes).fingerprint())
    assert len(seen) == 4


def test_a_wrong_root_is_told(root, tmp_path):
    with pytest.raises(UserError, match=r"no image with boxes .*holds train, val; expected the"):
        Imagenette(root=str(root), boxes=table(tmp_path / "b.csv"))
    with pytest.raises(UserError, match=r"which holds .*imagenette2-160; expected .*Imagenette v2"):
        Imagenette(root=str(root.parent))
    with pytest.raises(UserError, match="does not exist"):
        Imagenette(root=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,wnid,width,height\n", "has no column xmin, ymin, xmax, ymax; add it"),
        (f"{HEADER}a,n01440764,9,9,1,2,x,4\n", "line 2: could not convert .*'x'"),
        (f"{HEADER}a,n01440764,9,9,1,2,3,4\na,n01440764,9,9\n", "line 3: .*correct the row"),
        (f"{HEADER}a,n01440764,9,9,5,2,3,4\n", r"line 2: box \[5.0, 2.0, 3.0, 4.0\] has no area"),
        (f"{HEADER}a,n01440764,9,0,1,2,3,4\n", "line 2: the image size is 9 x 0"),
        (f"{HEADER}a,n1,9,9,1,2,3,4\na,n2,9,9,1,2,3,4\n", "line 3: wnid or size differs"),
        (f"{HEADER}{FISH},n00000009,9,9,1,2,3,4\n", "n00000009 is not one of the 1000 classes"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_broken_box_file_is_told(root, tmp_path, text, message):
    path = tmp_path / "b.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        Imagenette(root=str(root), boxes=str(path))


def test_a_missing_box_file_is_told(root):
    with pytest.raises(UserError, match=r"gone\.csv cannot be read .*No such file"):
        Imagenette(root=str(root), boxes="gone.csv")


def test_an_image_in_the_folder_of_another_class_is_a_broken_example(root):
    moved = root / "val/n03000684" / f"{FISH}.JPEG"
    moved.parent.mkdir()
    (root / "val/n01440764" / f"{FISH}.JPEG").rename(moved)
    with pytest.raises(ExampleError, match=r"in the folder of n03000684, but .* of n01440764"):
        Imagenette(root=str(root))[0]


@pytest.mark.skipif(
    not (REAL / "ilsvrc_val_500").is_dir(), reason="../shared/data/ilsvrc_val_500 is absent"
)
def test_boxes_agree_with_the_squashed_real_photographs(tmp_path):
    photographs = ImageNet(root=str(REAL / "ilsvrc_val_500"))
    wnids = sorted(imagenet_index())
    for wnid in {annotation.wnids[0] for annotation in read_box_table(PACKAGED).values()}:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    images = REAL / "ilsvrc_val_500/ILSVRC/Data/CLS-LOC/val"
    for index, image_id in enumerate(photographs.image_ids):
        folder = tmp_path / "val" / wnids[photographs[index].label]
        if folder.is_dir():
            (folder / f"{image_id}.JPEG").symlink_to((images / f"{image_id}.JPEG").resolve())
    data = Imagenette(root=str(tmp_path))
    for index, image_id in enumerate(data.image_ids):
        expected = photographs[photographs.image_ids.index(image_id)]
        assert data[index].label == expected.label
        np.testing.assert_allclose(data[index].boxes, expected.boxes, atol=1)
    assert len(data) == 3
