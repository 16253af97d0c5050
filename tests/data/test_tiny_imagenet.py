import numpy as np
import pytest
from PIL import Image
from repository import SHARED

from gradcam_bench.data.tiny_imagenet import TinyImageNet
from gradcam_bench.errors import ExampleError, UserError

REAL = SHARED / "data" / "tiny-imagenet-200"
ROWS = "val_0.JPEG\tn03126707\t0\t32\t44\t62\nval_1.JPEG\tn01443537\t5\t7\t5\t63\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "val/images").mkdir(parents=True)
    for name in ("val_0", "val_1"):
        Image.new("RGB", (64, 64), (9, 99, 199)).save(tmp_path / f"val/images/{name}.JPEG")
    (tmp_path / "val/val_annotations.txt").write_text(ROWS)
    (tmp_path / "wnids.txt").write_text("n03126707\nn01443537\nn01910747\n")
    (tmp_path / "words.txt").write_text(
        "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn01910747\tjellyfish\n"
        "n03126707\tcrane\n"
    )
    return tmp_path


def test_far_corners_become_half_open(root):
    data = TinyImageNet(root=str(root))
    np.testing.assert_array_equal(data[0].boxes, [[0, 32, 45, 63]])
    np.testing.assert_array_equal(data[1].boxes, [[5, 7, 6, 64]])
    assert data[0].boxes.dtype == np.float64
    assert list(data.image_ids) == ["val_0", "val_1"]


def test_imagenet_labels_are_among_the_thousand(root):
    data = TinyImageNet(root=str(root))
    assert [data[i].label for i in range(2)] == [517, 1]
    assert len(data.class_names) == 1000
    assert data.class_names[1] == "goldfish"


def test_tiny_labels_are_among_the_sorted_wnids(root):
    data = TinyImageNet(root=str(root), labels="tiny")
    assert [data[i].label for i in range(2)] == [2, 0]
    assert list(data.class_names) == ["goldfish", "jellyfish", "crane"]


def test_boxes_follow_an_enlarged_copy(root):
    Image.new("L", (128, 128)).save(root / "val/images/val_0.JPEG")
    example = TinyImageNet(root=str(root))[0]
    np.testing.assert_array_equal(example.boxes, [[0, 64, 90, 126]])
    assert example.image.mode == "RGB"


def test_the_fingerprint_changes_with_labels_and_boxes(root):
    seen = {TinyImageNet(root=str(root)).fingerprint()}
    assert seen == {TinyImageNet(root=str(root)).fingerprint()}
    seen.add(TinyImageNet(root=str(root), labels="tiny").fingerprint())
    for old, new in (("\t62", "\t61"), ("n01443537", "n01910747")):
        (root / "val/val_annotations.txt").write_text(ROWS.replace(old, new))
        seen.add(TinyImageNet(root=str(root)).fingerprint())
    assert len(seen) == 4


def test_a_wrong_root_is_told(root):
    with pytest.raises(UserError, match=r"is missing in .*which holds images.*; expected the fold"):
        TinyImageNet(root=str(root / "val"))
    with pytest.raises(UserError, match="does not exist"):
        TinyImageNet(root=str(root / "nowhere"))


def test_unknown_labels_are_refused(root):
    with pytest.raises(UserError, match=r"labels must be imagenet or tiny, got 'mini'"):
        TinyImageNet(root=str(root), labels="mini")


@pytest.mark.parametrize("labels", ["imagenet", "tiny"])
def test_a_class_outside_the_chosen_labels_breaks_its_image_alone(root, labels):
    path = root / "val/val_annotations.txt"
    path.write_text(ROWS.replace("n03126707", "n00001740"))
    data = TinyImageNet(root=str(root), labels=labels)
    assert data[1].image_id == "val_1"
    with pytest.raises(ExampleError, match=r"of val_0 .*n00001740 is none of the classes") as error:
        data[0]
    assert (error.value.kind, error.value.path) == ("label", str(path))


def test_classes_none_of_which_is_known_are_refused(root):
    path = root / "val/val_annotations.txt"
    path.write_text(ROWS.replace("n03126707", "n00001740").replace("n01443537", "n00000009"))
    with pytest.raises(UserError, match=r"imagenet: the 1000 classes .*: n00000009 is not one"):
        TinyImageNet(root=str(root))
    with pytest.raises(UserError, match=r"labels=tiny: wnids\.txt\): n00000009 is not one of"):
        TinyImageNet(root=str(root), labels="tiny")


@pytest.mark.parametrize(
    "line",
    [
        "val_2.JPEG",
        "val_2.JPEG\tn01443537\t1\t2\t3",
        "val_2.JPEG\tn01443537\t1\t2\t3\tx",
        "val_2.JPEG\tn01443537\t1\t2\t3\t4\t5",
        "val_2.JPEG\tn01443537\t1\t2\t3\t" + "9" * 5000,
        "val_2.JPEG\tn01443537\t1\t2\t3\t" + "9" * 400,
    ],
)
def test_a_broken_line_breaks_its_image_alone(root, line):
    path = root / "val/val_annotations.txt"
    path.write_text(ROWS + line + "\n")
    data = TinyImageNet(root=str(root))
    assert [data[i].image_id for i in range(2)] == ["val_0", "val_1"]
    with pytest.raises(ExampleError, match=r"val_2 .*line 3: expected 'file wnid .*got") as error:
        data[2]
    assert (error.value.kind, error.value.path) == ("annotation", str(path))
    assert len(str(error.value)) < 600


def test_a_line_without_a_name_is_refused(root):
    (root / "val/val_annotations.txt").write_text(ROWS + "\tn01443537\t1\t2\t3\t4\n")
    with pytest.raises(UserError, match=r"annotations\.txt, line 3: expected 'file wnid .*got"):
        TinyImageNet(root=str(root))


def test_an_image_named_twice_is_a_broken_example(root):
    (root / "val/val_annotations.txt").write_text(ROWS + "val_0.JPEG\tn01443537\t1\t2\t3\t4\n")
    data = TinyImageNet(root=str(root))
    with pytest.raises(ExampleError, match=r"val_0 .*line 3 names it again"):
        data[0]
    assert data[1].label == 1


@pytest.mark.parametrize("name", ["../../secret.JPEG", "/etc/passwd", "sub/a.JPEG", "..", "a\0b"])
def test_a_line_cannot_lead_out_of_the_folder_of_images(root, name):
    Image.new("RGB", (64, 64)).save(root / "secret.JPEG")
    line = f"{name}\tn01443537\t1\t2\t3\t4\n"
    (root / "val/val_annotations.txt").write_text(ROWS + line)
    data = TinyImageNet(root=str(root))
    broken = next(i for i, image_id in enumerate(data.image_ids) if not image_id.startswith("val_"))
    with pytest.raises(ExampleError, match="the name is no plain file name"):
        data[broken]


@pytest.mark.parametrize(("start", "end"), [("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")])
def test_a_bom_line_ends_of_windows_and_empty_lines_change_nothing(root, start, end):
    expected = TinyImageNet(root=str(root)).fingerprint()
    content = start + ROWS.replace("\n", end) + end
    (root / "val/val_annotations.txt").write_bytes(content.encode())
    assert TinyImageNet(root=str(root)).fingerprint() == expected


def test_an_empty_table_is_told(root):
    (root / "val/val_annotations.txt").write_text("")
    with pytest.raises(
        UserError, match=r"val_annotations\.txt is empty, or no line .* restore the file"
    ):
        TinyImageNet(root=str(root))


def test_a_missing_list_of_classes_is_told(root):
    (root / "wnids.txt").unlink()
    with pytest.raises(UserError, match=r"wnids\.txt cannot be read"):
        TinyImageNet(root=str(root), labels="tiny")


def test_a_box_inside_out_and_a_missing_image_are_broken_examples(root):
    (root / "val/val_annotations.txt").write_text(ROWS.replace("\t44\t", "\t-2\t"))
    (root / "val/images/val_1.JPEG").unlink()
    data = TinyImageNet(root=str(root))
    with pytest.raises(ExampleError, match=r"val_0 .*box \[0, 32, -1, 63\] has no area") as error:
        data[0]
    assert error.value.kind == "box"
    with pytest.raises(ExampleError, match=r"val_1\.JPEG does not exist"):
        data[1]


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/tiny-imagenet-200 is absent")
def test_the_real_set_is_inside_its_images_and_balanced():
    data = TinyImageNet(root=str(REAL), labels="tiny")
    assert len(data) == 10_000
    examples = [data[index] for index in range(0, 10_000, 50)]
    boxes = np.concatenate([example.boxes for example in examples])
    assert boxes.shape == (200, 4)
    assert boxes.min() == 0
    assert boxes.max() == 64
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(data.class_names) == 200
    assert len(TinyImageNet(root=str(REAL)).class_names) == 1000
