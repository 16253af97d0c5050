import numpy as np
import pytest
from PIL import Image
from repository import ROOT, SHARED

from gradcam_bench.data.annotation_tables import read_box_table
from gradcam_bench.data.annotations import imagenet_index
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
        f"val/n01440764/{FISH}": (200, 150),  # 500 x 375 originally: scaled by 2/5
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
        fish.boxes, [[70, 73.6, 199.6, 136.4], [94.4, 51.6, 199.2, 112]], atol=1e-12
    )
    assert len(data.class_names) == 1000


def test_boxes_at_original_size_are_as_written(root):
    np.testing.assert_array_equal(Imagenette(root=str(root))[1].boxes[0], [146, 220, 305, 281])


def test_the_packaged_file_has_all_500_images():
    annotations, faults = read_box_table(PACKAGED)
    assert not faults
    assert len(annotations) == 500
    assert sum(len(a.boxes) for a in annotations.values()) == 813
    assert len({a.wnids[0] for a in annotations.values()}) == 10


def test_another_box_file_replaces_the_packaged_one(root, tmp_path):
    boxes = table(tmp_path / "b.csv", f"{FISH},n01440764,200,150,1,2,30,40")
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
        (f"{HEADER},n01440764,9,9,1,2,3,4\n", "line 2 names no image; add it"),
        (f"{HEADER}{FISH},n00000009,9,9,1,2,3,4\n", "n00000009 is not one of the classes"),
        (f'{HEADER}a,"{"x" * 200_000}"\n', "line 1: field larger than field limit"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_broken_box_file_is_told(root, tmp_path, text, message):
    path = tmp_path / "b.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        Imagenette(root=str(root), boxes=str(path))


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        (["n01440764,99,99,1,2,x,4"], "annotation", "line 3: 'x' is no number"),
        (["n01440764,99,99"], "annotation", "line 3: it has more or fewer fields"),
        (["n01440764,99,99,1,2,3,4,5"], "annotation", "line 3: it has more or fewer fields"),
        (["n01440764,99,99,5,2,3,4"], "box", r"line 3: box \[5.0, 2.0, 3.0, 4.0\] has no area"),
        (["n01440764,99,0,1,2,3,4"], "box", "line 3: a side of the image is 0 pixels"),
        (
            ["n01440764,99,99,1,2,3,4", "n1,99,99,1,2,3,4"],
            "annotation",
            "line 4: wnid or size diff",
        ),
        (["n00000009,99,99,1,2,3,4"], "label", "n00000009 is none of the classes"),
    ],
)
def test_a_broken_row_breaks_its_image_alone(root, tmp_path, rows, kind, message):
    good = f"{PLAYER},n03000684,334,500,1,2,30,40"
    path = table(tmp_path / "b.csv", good, *(f"{FISH},{row}" for row in rows))
    data = Imagenette(root=str(root), boxes=path)
    assert list(data.image_ids) == [FISH, PLAYER]
    np.testing.assert_array_equal(data[1].boxes, [[1, 2, 30, 40]])
    with pytest.raises(ExampleError, match=rf"{FISH} .*\({message}") as error:
        data[0]
    assert (error.value.kind, error.value.path) == (kind, path)
    assert data.fingerprint()


@pytest.mark.parametrize(("start", "end"), [("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")])
def test_a_bom_and_line_ends_of_windows_change_nothing(root, tmp_path, start, end):
    row = f"{FISH},n01440764,200,150,1,2,30,40"
    content = start + f"{HEADER}{row}\n".replace("\n", end)
    (tmp_path / "b.csv").write_bytes(content.encode())
    data = Imagenette(root=str(root), boxes=str(tmp_path / "b.csv"))
    np.testing.assert_array_equal(data[0].boxes, [[1, 2, 30, 40]])


def test_a_row_that_comes_twice_gives_its_box_twice(root, tmp_path):
    row = f"{FISH},n01440764,200,150,1,2,30,40"
    data = Imagenette(root=str(root), boxes=table(tmp_path / "b.csv", row, row))
    assert data[0].boxes.tolist() == [[1, 2, 30, 40]] * 2


def test_one_image_in_train_and_val_is_refused(root):
    twin = root / "train/n01440764" / f"{FISH}.JPEG"
    Image.new("RGB", (200, 150)).save(twin)
    with pytest.raises(UserError, match=r"one image in two files: .*remove the wrong one"):
        Imagenette(root=str(root))


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
    for wnid in {annotation.wnids[0] for annotation in read_box_table(PACKAGED)[0].values()}:
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
