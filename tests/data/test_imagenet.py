import csv
import os
import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image
from repository import SHARED

from gradcam_bench.data import devkit
from gradcam_bench.data.annotations import imagenet_classes, imagenet_index
from gradcam_bench.data.imagenet import ImageNet
from gradcam_bench.errors import ExampleError, UserError

REAL = SHARED / "data" / "ilsvrc_val_500"
TENCH, GOLDFISH, CRANE, CHURCH = "n01440764", "n01443537", "n03126707", "n03028079"
# (wnid, width, height, boxes): the order of the ids is not that of the classes
IMAGES = {
    "ILSVRC2012_val_00000001": (CHURCH, 50, 40, [(5, 6, 30, 33)]),
    "ILSVRC2012_val_00000002": (TENCH, 30, 60, [(1, 2, 20, 40), (0, 41.5, 29, 59)]),
    "ILSVRC2012_val_00000003": (CRANE, 45, 45, [(10, 10, 20, 20)]),
}


def xml(width, height, objects):
    items = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><folder>val</folder>{size}{items}</annotation>"


def write(folder, image_folder, xml_folder):
    """Write IMAGES; `{wnid}` in the folders' names stands for the class."""
    for image_id, (wnid, width, height, boxes) in IMAGES.items():
        images, xmls = (folder / name.format(wnid=wnid) for name in (image_folder, xml_folder))
        images.mkdir(parents=True, exist_ok=True)
        xmls.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (90, 120, 30)).save(images / f"{image_id}.JPEG", "JPEG")
        text = xml(width, height, [(wnid, box) for box in boxes])
        (xmls / f"{image_id}.xml").write_text(text)
    return folder


def write_solution(path):
    lines = ["ImageId,PredictionString"]
    for image_id in reversed(IMAGES):  # Kaggle's file is not sorted
        wnid, _, _, boxes = IMAGES[image_id]
        rows = (f"{wnid} {x0:.0f} {y0:.0f} {x1:.0f} {y1:.0f} " for x0, y0, x1, y1 in boxes)
        lines.append(f"{image_id},{''.join(rows)}")
    path.write_text("\n".join(lines) + "\n")


def write_devkit(folder, wnids=None):
    """Write labels as the devkit has them: its own ids, through meta.mat with inner nodes."""
    folder.mkdir(parents=True)
    ids = {GOLDFISH: 1, CRANE: 2, TENCH: 3, CHURCH: 4, "n00001740": 1001}
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
    fields += [("num_children", "O"), ("children", "O"), ("wordnet_height", "O")]
    synsets = np.empty((len(ids), 1), dtype=[*fields, ("num_train_images", "O")])
    for row, (wnid, number) in enumerate(ids.items()):
        children = np.array([[1, 2]] if number > 1000 else [[]], np.uint16)
        synsets[row, 0] = (number, wnid, "words", "gloss", children.size, children, 0, 1300)
    scipy.io.savemat(folder / "meta.mat", {"synsets": synsets})
    wnids = wnids or [wnid for wnid, *_ in IMAGES.values()]
    truth = folder / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{ids[wnid]}\n" for wnid in wnids))


def kaggle(folder):
    write(folder, "ILSVRC/Data/CLS-LOC/val", "ILSVRC/Annotations/CLS-LOC/val")
    write_solution(folder / "LOC_val_solution.csv")


def kaggle_without_solution(folder):
    write(folder, "ILSVRC/Data/CLS-LOC/val", "ILSVRC/Annotations/CLS-LOC/val")


def official(folder):
    write(folder, "val", "ILSVRC2012_bbox_val_v3/val")
    write_devkit(folder / "ILSVRC2012_devkit_t12/data")


def official_without_devkit(folder):
    write(folder, "ILSVRC2012_img_val", "bbox/val")


def everything_in_one_folder(folder):
    write(folder, ".", ".")


def boxes_extracted_among_the_images(folder):
    write(folder, "val", "val")


def synset_folders(folder):
    write(folder, "val/{wnid}", "val/{wnid}")


def synset_folders_at_the_root(folder):
    write(folder, "{wnid}", "{wnid}")


def synset_folders_with_flat_boxes(folder):
    write(folder, "val/{wnid}", "val_annotations")


def synset_folders_with_boxes_by_synset(folder):
    write(folder, "val/{wnid}", "ILSVRC2012_bbox_val_v3/val/{wnid}")


LAYOUTS = [
    kaggle,
    kaggle_without_solution,
    official,
    official_without_devkit,
    everything_in_one_folder,
    boxes_extracted_among_the_images,
    synset_folders,
    synset_folders_at_the_root,
    synset_folders_with_flat_boxes,
    synset_folders_with_boxes_by_synset,
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_examples(tmp_path, layout):
    layout(tmp_path)
    data = ImageNet(root=str(tmp_path))
    assert len(data) == 3
    assert list(data.image_ids) == list(IMAGES)
    for index, (image_id, (wnid, width, height, boxes)) in enumerate(IMAGES.items()):
        example = data[index]
        assert example.image_id == image_id
        assert example.label == sorted(imagenet_classes()).index(wnid)
        assert example.image.size == (width, height)
        assert example.image.mode == "RGB"
        assert example.boxes.dtype == np.float64
        np.testing.assert_array_equal(example.boxes, boxes)
    assert [data[i].label for i in range(3)] == [497, 0, 517]
    assert [data.class_names[label] for label in (497, 0)] == ["church", "tench"]


def test_the_kaggle_tree_opens_from_its_inner_folder_too(tmp_path):
    kaggle(tmp_path)
    inner, outer = ImageNet(root=str(tmp_path / "ILSVRC")), ImageNet(root=str(tmp_path))
    assert inner.fingerprint() == outer.fingerprint()


def test_the_thousand_classes_are_the_sorted_wnids():
    wnids = list(imagenet_classes())
    assert len(wnids) == 1000
    assert wnids == sorted(wnids)
    assert [imagenet_index()[w] for w in ("n01440764", "n01530575", "n15075141")] == [0, 10, 999]


def test_class_names_are_short_and_ambiguous_ones_long(tmp_path):
    official(tmp_path)
    names = ImageNet(root=str(tmp_path)).class_names
    assert len(names) == 1000
    assert names[2] == "great white shark"
    assert names[imagenet_index()["n03710721"]] == "maillot, tank suit"


def test_boxes_of_other_classes_are_left_out(tmp_path):
    official(tmp_path)
    path = tmp_path / "ILSVRC2012_bbox_val_v3/val/ILSVRC2012_val_00000001.xml"
    path.write_text(xml(50, 40, [(TENCH, (1, 1, 9, 9)), (CHURCH, (5, 6, 30, 33))]))
    np.testing.assert_array_equal(ImageNet(root=str(tmp_path))[0].boxes, [[5, 6, 30, 33]])


def test_the_synset_folder_is_the_label_before_any_other_source(tmp_path):
    synset_folders(tmp_path)
    write_devkit(tmp_path / "ILSVRC2012_devkit_t12/data", [GOLDFISH, GOLDFISH, GOLDFISH])
    path = tmp_path / "val" / CHURCH / "ILSVRC2012_val_00000001.xml"
    path.write_text(xml(50, 40, [(TENCH, (1, 1, 9, 9)), (CHURCH, (5, 6, 30, 33))]))
    assert [ImageNet(root=str(tmp_path))[i].label for i in range(3)] == [497, 0, 517]


def test_boxes_follow_a_resized_copy_of_the_image(tmp_path):
    official(tmp_path)
    Image.new("RGB", (15, 30)).save(tmp_path / "val/ILSVRC2012_val_00000002.JPEG")
    boxes = ImageNet(root=str(tmp_path))[1].boxes
    np.testing.assert_allclose(boxes, [[0.5, 1, 10, 20], [0, 20.75, 14.5, 29.5]])


def test_boxes_follow_a_copy_squashed_to_a_square(tmp_path):
    official(tmp_path)
    Image.new("RGB", (60, 60)).save(tmp_path / "val/ILSVRC2012_val_00000002.JPEG")
    boxes = ImageNet(root=str(tmp_path))[1].boxes
    np.testing.assert_allclose(boxes, [[2, 2, 40, 40], [0, 41.5, 58, 59]])


def test_an_image_of_another_shape_than_the_annotated_one_is_a_broken_example(tmp_path):
    official(tmp_path)
    path = tmp_path / "val/ILSVRC2012_val_00000002.JPEG"
    Image.new("RGB", (60, 30)).save(path)
    with pytest.raises(ExampleError, match=r"60 x 30 pixels, .* drawn on 30 x 60: ano") as error:
        ImageNet(root=str(tmp_path))[1]
    assert (error.value.kind, error.value.path) == ("box", str(path))


def test_boxes_turn_with_an_exif_rotated_image(tmp_path):
    official(tmp_path)
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "val/ILSVRC2012_val_00000001.JPEG"
    Image.new("RGB", (50, 40)).save(path, exif=exif)
    example = ImageNet(root=str(tmp_path))[0]
    assert example.image.size == (40, 50)
    np.testing.assert_allclose(example.boxes, [[40 - 33, 5, 40 - 6, 30]])


def test_the_label_of_the_devkit_goes_through_meta_mat(tmp_path):
    official(tmp_path)
    assert ImageNet(root=str(tmp_path))[0].label == imagenet_index()[CHURCH]
    (tmp_path / "ILSVRC2012_devkit_t12").rename(tmp_path / "moved")
    write_devkit(tmp_path / "ILSVRC2012_devkit_t12/data", [GOLDFISH, TENCH, CRANE])
    with pytest.raises(ExampleError, match=f"boxes of {CHURCH} but none of .* class {GOLDFISH}"):
        ImageNet(root=str(tmp_path))[0]


def test_the_fingerprint_changes_with_labels_boxes_and_images(tmp_path):
    kaggle(tmp_path)
    seen = {ImageNet(root=str(tmp_path)).fingerprint()}
    assert seen == {ImageNet(root=str(tmp_path)).fingerprint()}
    base = tmp_path / "ILSVRC"
    path = base / "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"
    path.write_text(path.read_text().replace("<xmin>5<", "<xmin>4<"))
    seen.add(ImageNet(root=str(tmp_path)).fingerprint())
    solution = tmp_path / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace(CRANE, GOLDFISH))
    seen.add(ImageNet(root=str(tmp_path)).fingerprint())
    (base / "Data/CLS-LOC/val/ILSVRC2012_val_00000003.JPEG").unlink()
    seen.add(ImageNet(root=str(tmp_path)).fingerprint())
    Image.new("RGB", (99, 99)).save(base / "Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG")
    seen.add(ImageNet(root=str(tmp_path)).fingerprint())
    assert len(seen) == 5
    assert all(len(digest) == 16 for digest in seen)


def test_a_dangling_link_breaks_one_example_and_not_the_data_set(tmp_path):
    official(tmp_path)
    (tmp_path / "val/ILSVRC2012_val_00000004.JPEG").symlink_to(tmp_path / "nowhere")
    boxes = tmp_path / "ILSVRC2012_bbox_val_v3/val/ILSVRC2012_val_00000004.xml"
    boxes.write_text(xml(9, 9, [(TENCH, (1, 1, 5, 5))]))
    data = ImageNet(root=str(tmp_path))
    assert data.fingerprint()
    with pytest.raises(
        ExampleError, match=r"ILSVRC2012_val_00000004 has no label in \S+ \(there is no line"
    ):
        data[3]


def test_a_worker_process_can_take_the_data_set(tmp_path):
    official(tmp_path)
    data = ImageNet(root=str(tmp_path))
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[1].boxes, data[1].boxes)
    assert copy.fingerprint() == data.fingerprint()


def test_a_wrong_root_is_told_with_the_layouts_and_what_was_found(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UserError) as error:
        ImageNet(root=str(tmp_path))
    for part in ("Kaggle:", "official:", "by synset:", "which holds holiday.jpg", str(tmp_path)):
        assert part in str(error.value)
    with pytest.raises(UserError, match=r"root=\S*nowhere does not exist .*three layouts"):
        ImageNet(root=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"holiday\.jpg is a file, not a folder"):
        ImageNet(root=str(tmp_path / "holiday.jpg"))
    with pytest.raises(UserError, match=r"dataset\.root is not given"):
        ImageNet(root="")


def test_images_without_any_box_file_are_refused(tmp_path):
    write(tmp_path, "val", "somewhere/else")
    with pytest.raises(UserError, match=r"box files \(\*\.xml\) neither there .*extract ILSVRC"):
        ImageNet(root=str(tmp_path))


def test_one_image_in_two_synset_folders_is_refused(tmp_path):
    synset_folders(tmp_path)
    source = tmp_path / "val" / TENCH / "ILSVRC2012_val_00000002.JPEG"
    (tmp_path / "val" / CRANE / source.name).write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=r"one image in two files: .*remove the wrong"):
        ImageNet(root=str(tmp_path))


def test_a_class_outside_the_thousand_breaks_its_image_alone(tmp_path):
    kaggle(tmp_path)
    solution = tmp_path / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace(CRANE, "n00000009"))
    data = ImageNet(root=str(tmp_path))
    assert [data[0].label, data[1].label] == [497, 0]
    with pytest.raises(ExampleError, match="n00000009 is none of the classes") as error:
        data[2]
    assert (error.value.kind, error.value.path) == ("label", str(solution))


def test_an_unknown_synset_folder_breaks_its_images_alone(tmp_path):
    synset_folders(tmp_path)
    (tmp_path / "val" / CRANE).rename(tmp_path / "val" / "n00000009")
    data = ImageNet(root=str(tmp_path))
    assert [data[0].label, data[1].label] == [497, 0]
    with pytest.raises(ExampleError, match="n00000009 is none of the classes") as error:
        data[2]
    assert error.value.path.endswith("val/n00000009/ILSVRC2012_val_00000003.JPEG")


def test_labels_none_of_which_is_known_are_refused(tmp_path):
    kaggle(tmp_path)
    solution = tmp_path / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace("n0", "m0"))
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv: m01440764 is not one of the"):
        ImageNet(root=str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ILSVRC2012_val_00000002", "line 5 has no class"),
        ("ILSVRC2012_val_00000002,", "line 5 has no class"),
        (f"ILSVRC2012_val_00000002,{CRANE} 1 2 3 4", "line 5 names another class"),
    ],
)
def test_a_broken_line_of_the_solution_breaks_its_image_alone(tmp_path, line, message):
    kaggle(tmp_path)
    with (tmp_path / "LOC_val_solution.csv").open("a") as file:
        file.write(f"{line}\n")
    data = ImageNet(root=str(tmp_path))
    assert [data[0].label, data[2].label] == [497, 517]
    with pytest.raises(ExampleError, match=message) as error:
        data[1]
    assert error.value.kind == "label"


def test_a_line_of_the_solution_without_an_image_is_refused(tmp_path):
    kaggle(tmp_path)
    with (tmp_path / "LOC_val_solution.csv").open("a") as file:
        file.write(f",{CRANE} 1 2 3 4\n")
    with pytest.raises(UserError, match=r"solution\.csv, line 5: expected .*n03126707 1 2 3 4'"):
        ImageNet(root=str(tmp_path))


@pytest.mark.parametrize(("start", "end"), [("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")])
def test_a_bom_and_line_ends_of_windows_change_nothing(tmp_path, start, end):
    kaggle(tmp_path)
    expected = ImageNet(root=str(tmp_path)).fingerprint()
    solution = tmp_path / "LOC_val_solution.csv"
    solution.write_bytes((start + solution.read_text().replace("\n", end)).encode())
    assert ImageNet(root=str(tmp_path)).fingerprint() == expected


def test_one_image_in_two_files_of_a_folder_is_refused(tmp_path):
    kaggle(tmp_path)
    source = tmp_path / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG"
    source.with_suffix(".png").write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=r"one image in two files: .*\.JPEG and .*\.png; remove"):
        ImageNet(root=str(tmp_path))


def test_an_image_the_solution_does_not_list_is_a_broken_example(tmp_path):
    kaggle(tmp_path)
    solution = tmp_path / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace("val_00000001", "val_00000007"))
    with pytest.raises(ExampleError, match="image ILSVRC2012_val_00000001 has no label"):
        ImageNet(root=str(tmp_path))[0]


@pytest.mark.parametrize("content", [None, b"MATLAB no more"])
def test_a_devkit_without_its_meta_mat_is_told(tmp_path, content):
    official(tmp_path)
    meta = tmp_path / "ILSVRC2012_devkit_t12/data/meta.mat"
    meta.unlink()
    if content:
        meta.write_bytes(content)
    with pytest.raises(UserError, match=r"meta\.mat cannot be read .*extract ILSVRC2012_devkit"):
        ImageNet(root=str(tmp_path))


def test_a_devkit_whose_reader_dies_is_told(tmp_path, monkeypatch):
    official(tmp_path)
    monkeypatch.setattr(devkit, "_CHILD", "import os; os.abort()")
    with pytest.raises(UserError, match=r"meta\.mat cannot be read \(its reader was ended by sig"):
        ImageNet(root=str(tmp_path))


def test_a_devkit_whose_reader_hangs_is_told(tmp_path, monkeypatch):
    official(tmp_path)
    monkeypatch.setattr(devkit, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(devkit, "MAX_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"meta\.mat cannot be read \(.*timed out"):
        ImageNet(root=str(tmp_path))


def test_a_devkit_label_outside_meta_mat_is_told(tmp_path):
    official(tmp_path)
    truth = tmp_path / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("4\n3\n77\n")
    with pytest.raises(UserError, match=r"ground_truth\.txt has a label .*meta\.mat \(77\)"):
        ImageNet(root=str(tmp_path))


def test_xmls_that_name_two_classes_give_no_label(tmp_path):
    official_without_devkit(tmp_path)
    path = tmp_path / "bbox/val/ILSVRC2012_val_00000001.xml"
    path.write_text(xml(50, 40, [(TENCH, (1, 1, 9, 9)), (CHURCH, (5, 6, 30, 33))]))
    with pytest.raises(ExampleError, match=f"names {TENCH}, {CHURCH}; add LOC_val_solution"):
        ImageNet(root=str(tmp_path))[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"is broken \(no element found"),
        ("<annotation><size>", r"is broken \(no element found"),
        ("\x00\x01\x02", r"is broken \(not well-formed"),
        ("<annotation/>", "<width> is missing"),
        (xml(50, 40, []), "there is no <object>"),
        (xml(0, 40, [(CHURCH, (1, 1, 2, 2))]), "a side of the image is 0 pixels"),
        (xml("wide", 40, [(CHURCH, (1, 1, 2, 2))]), "'wide' is no number"),
        (xml(50, 40, [(CHURCH, (9, 1, 2, 2))]), r"box \[9.0, 1.0, 2.0, 2.0\] has no area"),
        (xml(50, 40, [(CHURCH, ("nan", 1, 2, 2))]), "corner that is no number"),
        (xml(50, 40, [(CHURCH, ("", 1, 2, 2))]), "'' is no number"),
        (xml(50, 40, [(CHURCH, (1, 1, 2, 2))]).replace("bndbox", "box"), "<xmin> is missing"),
        (xml(50, 40, [(TENCH, (1, 1, 2, 2))]), f"boxes of {TENCH} but none of .*class {CHURCH}"),
    ],
)
def test_a_broken_xml_is_told_with_its_name(tmp_path, content, message):
    kaggle(tmp_path)
    path = tmp_path / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"
    path.write_text(content)
    data = ImageNet(root=str(tmp_path))
    with pytest.raises(ExampleError, match=rf"annotation \S*val_00000001\.xml .*{message}"):
        data[0]
    assert data[1].label == 0  # the others are fine


def test_an_xml_that_is_a_pipe_breaks_one_example_and_hangs_nothing(tmp_path):
    kaggle(tmp_path)
    path = tmp_path / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"
    path.unlink()
    os.mkfifo(path)
    data = ImageNet(root=str(tmp_path))
    assert data.fingerprint()
    with pytest.raises(ExampleError, match=r"val_00000001\.xml is broken \(it is .* a pipe"):
        data[0]
    assert data[1].label == 0


def test_a_missing_xml_is_told_with_the_path_where_it_belongs(tmp_path):
    kaggle(tmp_path)
    path = tmp_path / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"
    path.unlink()
    with pytest.raises(ExampleError, match=f"{path} does not exist; restore the file"):
        ImageNet(root=str(tmp_path))[0]


def test_a_truncated_image_is_told_with_its_name(tmp_path):
    kaggle(tmp_path)
    path = tmp_path / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ExampleError, match=r"val_00000001\.JPEG cannot be read .*[Tt]runcated"):
        ImageNet(root=str(tmp_path))[0]


real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/ilsvrc_val_500 is absent")


@real
def test_the_real_photographs_agree_with_kaggles_solution():
    data = ImageNet(root=str(REAL))
    with (REAL / "LOC_val_solution.csv").open(newline="") as file:
        solution = {row["ImageId"]: row["PredictionString"].split() for row in csv.DictReader(file)}
    assert len(data) == len(solution) == 500
    assert list(data.image_ids) == sorted(solution)
    for index in range(0, 500, 5):
        example, words = data[index], solution[data.image_ids[index]]
        boxes = [[float(v) for v in words[i + 1 : i + 5]] for i in range(0, len(words), 5)]
        np.testing.assert_array_equal(example.boxes, boxes)
        assert example.label == imagenet_index()[words[0]]
        assert example.image.size == (227, 227)


@real
def test_the_packaged_classes_are_those_of_kaggle():
    lines = (REAL / "LOC_synset_mapping.txt").read_text().splitlines()
    assert dict(line.split(" ", 1) for line in lines) == imagenet_classes()
