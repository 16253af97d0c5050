"""What a bad example does to a run: nothing, but for its own row. docs/metrics.md has the rules."""

import io
import os
import pickle
import struct
import threading
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradcam_bench.data import rules
from gradcam_bench.data.annotation_tables import read_box_table, read_solution
from gradcam_bench.data.annotations import load_example, read_xml
from gradcam_bench.data.example import Example
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.data.images import load_rgb
from gradcam_bench.data.jpeg import MAX_SCANS, blanked
from gradcam_bench.data.tiny_imagenet import TinyImageNet
from gradcam_bench.errors import ExampleError, UserError, brief
from gradcam_bench.run.batches import batches

GOOD = "<xmin>4</xmin><ymin>5</ymin><xmax>30</xmax><ymax>20</ymax>"


def box(x0, y0, x1, y1):
    return f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"


def xml(corners=GOOD, width="40", height="30"):
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"<object><name>n01440764</name><bndbox>{corners}</bndbox></object></annotation>"
    )


def photo(width=96, height=64, seed=0):
    """Return a picture with edges and grain, as a photograph has them."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    smooth = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray((smooth + rng.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def broken(call, *arguments, **options):
    """Return the ExampleError of a call that must come back, whatever its input, in five seconds.

    In a thread: a call that hangs would hang the tests.
    """
    found = []

    def run():
        try:
            found.append(call(*arguments, **options))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(5)
    assert found, f"{call.__name__}{arguments} hangs"
    assert isinstance(found[0], ExampleError), found[0]
    return found[0]


# ---- boxes -------------------------------------------------------------------------------------

OUTSIDE = {
    "right of the image": (50, 5, 90, 20),
    "above the image": (4, -40, 30, -10),
    "a pixel beyond the corner": (41, 31, 42, 32),
    "touching the border from outside": (40, 5, 60, 20),
    "more outside than inside": (30, 5, 60, 20),
    "ten times the image": (0, 0, 400, 300),
    "twice the image and a bit": (0, 0, 57, 43),
    "a million pixels away": (4, 5, 2e6, 20),
    "beyond what can be squared": (4, 5, 1e300, 20),
    "wider than the largest number": (-1.7e308, 5, 1.7e308, 20),
    "infinite": (4, 5, "inf", 20),
    "infinite by its digits": (4, 5, "9" * 5000, 20),
    "not a number": (4, "nan", 30, 20),
    "inside out": (30, 5, 4, 20),
    "without width": (4, 5, 4, 20),
}


@pytest.mark.parametrize("corners", OUTSIDE.values(), ids=OUTSIDE)
def test_a_box_that_cannot_be_right_is_a_broken_example(tmp_path, corners):
    path = tmp_path / "a.xml"
    path.write_text(xml(box(*corners)))
    error = broken(read_xml, path)
    assert (error.kind, error.path) == ("box", str(path))
    assert "a.xml is broken (box [" in str(error)
    assert len(str(error)) < 400


def test_boxes_stated_for_a_tenth_of_their_size_are_broken(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(xml(box(40, 50, 300, 200), width=40, height=30))  # drawn on 400 x 300
    assert broken(read_xml, path).kind == "box"


def test_an_image_of_a_tenth_of_the_stated_size_is_a_copy_on_purpose(tmp_path):
    photo(40, 30).save(tmp_path / "a.png")
    boxes = np.array([[40.0, 50, 300, 200]])
    example = load_example("a", str(tmp_path / "a.png"), label=0, size=(400, 300), boxes=boxes)
    np.testing.assert_allclose(example.boxes, [[4, 5, 30, 20]])


def test_an_image_of_another_shape_than_its_boxes_is_a_broken_example(tmp_path):
    path = str(tmp_path / "a.png")
    photo(40, 30).save(path)
    error = broken(
        load_example, "a", path, label=0, size=(300, 400), boxes=np.array([[1, 2, 9, 9]])
    )
    assert (error.kind, error.path) == ("box", path)


@pytest.mark.parametrize("size", ["inf", "nan", "9" * 5000, "1e300", "0", "-5", "40.5", "1e7"])
def test_a_size_that_cannot_be_right_is_a_broken_example(tmp_path, size):
    for text in (xml(width=size), xml(height=size)):
        (tmp_path / "a.xml").write_text(text)
        assert broken(read_xml, tmp_path / "a.xml").kind == "box"


@settings(max_examples=300)
@given(
    st.lists(st.tuples(*[st.floats() | st.integers(-50, 250)] * 4), max_size=4),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_boxes_are_refused_or_have_an_area_in_the_image(corners, size):
    boxes = np.array(corners, np.float64).reshape(-1, 4)
    try:
        rules.check_boxes(boxes.tolist(), size)
    except ExampleError:
        return
    cut, count = rules.clip_boxes(boxes, size)
    assert (cut >= 0).all()
    assert (cut <= [*size, *size]).all()
    assert (cut[:, 2:] > cut[:, :2]).all()
    assert 0 <= count <= len(boxes)
    np.testing.assert_array_equal(rules.clip_boxes(cut, size)[0], cut)
    inside = ((boxes >= 0) & (boxes <= [*size, *size])).all(1)
    np.testing.assert_array_equal(cut[inside], boxes[inside])


# ---- from an example to what the network sees --------------------------------------------------


class Several:
    """A data set of someone else: hands out what it is given, unchecked."""

    def __init__(self, examples):
        self.examples, self.class_names = examples, ["a"]
        self.image_ids = [f"image {i}" for i in range(len(examples))]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        if isinstance(self.examples[index], Exception):
            raise self.examples[index]
        return self.examples[index]

    def fingerprint(self):
        return "none"


def items(*examples, workers=0):
    geometry, indices = Geometry(size=32), range(len(examples))
    loader = batches(
        Several(examples), geometry, indices, batch_size=8, num_workers=workers, pin=False
    )
    return next(iter(loader)).items


def example(boxes, width=40, height=30):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    return Example("a", photo(width, height), label=0, boxes=boxes)


def test_boxes_that_reach_outside_are_cut_to_the_image_and_counted():
    found = items(
        example([[4, 5, 30, 20]]),
        example([[-5, 5, 30, 20], [4, 5, 45, 33], [0, 0, 40, 30]]),
        example([[-0.4, 0, 40.5, 30.1]]),  # rounding, not counted
        example([]),
    )
    assert [item.boxes_clipped for item in found] == [0, 2, 0, 0]
    scale = np.array([32 / 40, 32 / 30, 32 / 40, 32 / 30])
    np.testing.assert_allclose(found[0].boxes / scale, [[4, 5, 30, 20]])
    expected = [[0, 5, 30, 20], [4, 5, 40, 30], [0, 0, 40, 30]]
    np.testing.assert_allclose(found[1].boxes / scale, expected)
    np.testing.assert_array_equal(found[1].view_boxes, expected)
    np.testing.assert_allclose(found[2].boxes / scale, [[0, 0, 40, 30]])


def test_every_data_set_is_held_to_the_rules():
    found = items(
        example([[50, 5, 90, 20]]),
        example([[4, 5, np.nan, 20]]),
        example([[0, 0, 1, 1]], width=1, height=1),
        example([[0, 0, 1, 1]], width=1, height=5000),
        example([[4, 5, 30, 20]]),
    )
    assert [item.error_kind for item in found] == ["box", "box", "image", "image", None]
    assert [item.error is None for item in found] == [False] * 4 + [True]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_process_hands_on_what_is_broken_and_where(workers):
    error = ExampleError("image x.JPEG is empty; restore it", kind="image", path="x.JPEG")
    item = items(error, example([]), workers=workers)[0]
    assert (item.error, item.error_kind, item.error_path) == (str(error), "image", "x.JPEG")


def test_an_example_error_pickles_with_its_attributes():
    error = pickle.loads(pickle.dumps(ExampleError("a", kind="box", path="b")))
    assert (str(error), error.kind, error.path) == ("a", "box", "b")


# ---- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 100), (8, 401)])
def test_an_image_that_shows_nothing_is_a_broken_example(tmp_path, size):
    path = str(tmp_path / "a.png")
    Image.new("RGB", size).save(path)
    error = broken(load_example, "a", path, label=0, size=size, boxes=np.array([[0, 0, 1, 1]]))
    assert (error.kind, error.path) == ("image", path)
    assert f"it has {size[0]} x {size[1]} pixels" in str(error)


@pytest.mark.parametrize("size", [(8, 8), (8, 400), (400, 8)])
def test_small_and_long_images_within_the_bounds_are_used(tmp_path, size):
    path = str(tmp_path / "a.png")
    Image.new("RGB", size).save(path)
    found = load_example("a", path, label=0, size=size, boxes=np.array([[0, 0, 1, 1]]))
    assert found.image.size == size


def bomb():
    """Return a PNG of 150 bytes that says it has 30,000 x 30,000 pixels."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def many_scans():
    """Return a progressive JPEG whose last scan comes again and again."""
    data = encoded(photo(), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * MAX_SCANS + data[-2:]


BAD_IMAGES = {
    "empty": (b"", "it is empty"),
    "cut short": (encoded(photo())[:900], "truncated"),
    "a decompression bomb": (bomb(), "decompression bomb"),
    "a progressive JPEG without end": (many_scans(), "more than 100 scans"),
    "PostScript, which runs": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "identify"),
}


@pytest.mark.parametrize(("content", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_an_image_that_cannot_be_read_is_a_broken_example(tmp_path, content, message):
    path = tmp_path / "a.JPEG"
    path.write_bytes(content)
    error = broken(load_rgb, path)
    assert (error.kind, error.path) == ("image", str(path))
    assert message in str(error)


def test_several_frames_of_a_camera_give_the_first(tmp_path):
    path = tmp_path / "a.JPEG"
    first, second = photo(seed=1), photo(seed=2)
    first.save(path, "MPO", save_all=True, append_images=[second], quality=95)
    np.testing.assert_allclose(np.asarray(load_rgb(path)), np.asarray(first), atol=60)


# ---- JPEGs with blanks -------------------------------------------------------------------------

ENCODERS = {
    "standard tables": {},
    "optimized tables": {"optimize": True},
    "progressive": {"progressive": True},
    "gray": {},
}


def as_stored(image, name, **options):
    return encoded(image.convert("L") if name == "gray" else image, **ENCODERS[name], **options)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("quality", [75, 95])
def test_a_half_zeroed_jpeg_is_a_broken_example(tmp_path, name, quality):
    data = as_stored(photo(300, 200), name, quality=quality)
    half = len(data) // 2
    zeroed = {
        "half": data[:half] + bytes(len(data) - half),
        "half, but for its end": data[:half] + bytes(len(data) - half - 2) + data[-2:],
        "a page of the disk": data[:half] + bytes(4096) + data[half + 4096 :],
    }
    for content in zeroed.values():
        (tmp_path / "a.JPEG").write_bytes(content)
        error = broken(load_rgb, tmp_path / "a.JPEG")
        assert "bytes of its picture are 0" in str(error) or "truncated" in str(error)


def test_a_sector_of_zeros_in_a_jpeg_of_standard_tables_is_a_broken_example(tmp_path):
    # fewer zeros than flat blocks could fill, but by these tables zero bits are not flat
    data = encoded(photo(300, 200), quality=75)
    half = len(data) // 2
    (tmp_path / "a.JPEG").write_bytes(data[:half] + bytes(512) + data[half + 512 :])
    assert "bytes of its picture are 0" in str(broken(load_rgb, tmp_path / "a.JPEG"))


def test_a_page_of_ones_in_a_jpeg_is_a_broken_example(tmp_path):
    data = encoded(photo(300, 200), quality=95)
    half = len(data) // 2
    (tmp_path / "a.JPEG").write_bytes(data[:half] + b"\xff" * 4096 + data[half + 4096 :])
    assert "4096 bytes of its picture are 255" in str(broken(load_rgb, tmp_path / "a.JPEG"))


def scenes():
    flat, bars = Image.new("RGB", (640, 480)), Image.new("RGB", (640, 480))
    bars.paste(photo(640, 160), (0, 160))
    product = Image.new("RGB", (640, 480), "white")
    product.paste(photo(160, 120), (200, 150))
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 640).astype(np.uint8), (480, 1)))
    return {"flat": flat, "bars": bars, "product": product, "ramp": ramp.convert("RGB")}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("scene", scenes())
def test_flat_parts_of_a_sound_jpeg_are_no_blanks(name, scene):
    for quality in (10, 50, 75, 95):
        data = as_stored(scenes()[scene], name, quality=quality)
        assert blanked(data) is None
    if scene == "flat" and name == "optimized tables":
        assert bytes(1000) in data  # as many zeros as a damaged file


def test_zeros_outside_the_picture_of_a_jpeg_are_no_blanks(tmp_path):
    image = photo()
    data = encoded(image, icc_profile=bytes(9000), comment=bytes(500) + b"\xff" * 500)
    assert blanked(data) is None
    assert blanked(data + bytes(5000)) is None  # behind its end
    scans = encoded(image, progressive=True)
    last = scans.rindex(b"\xff\xda")
    comment = b"\xff\xfe" + struct.pack(">H", 502) + bytes(500)
    assert blanked(scans[:last] + comment + scans[last:]) is None
    assert blanked(scans[:last] + bytes(500) + scans[last:]) is not None
    (tmp_path / "a.JPEG").write_bytes(data + bytes(5000))
    assert load_rgb(tmp_path / "a.JPEG").size == image.size


# ---- files that are no files -------------------------------------------------------------------


def test_a_pipe_is_told_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a")
    for read, kind in ((load_rgb, "image"), (read_xml, "annotation")):
        error = broken(read, tmp_path / "a")
        assert error.kind == kind
        assert "no regular file" in str(error)


def test_a_folder_a_device_and_a_locked_file_are_told(tmp_path, monkeypatch):
    for read in (load_rgb, read_xml):
        assert "no regular file" in str(broken(read, tmp_path))
        assert "no regular file" in str(broken(read, "/dev/zero"))

    def deny(path, flags):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr("gradcam_bench.data.regular_files.os.open", deny)
    for read in (load_rgb, read_xml):
        assert "Permission denied" in str(broken(read, tmp_path / "a"))


def test_an_annotation_of_megabytes_is_not_read(tmp_path):
    (tmp_path / "a.xml").write_text(xml() + " " * 2_000_000)
    assert "are more than the 1048576 allowed" in str(broken(read_xml, tmp_path / "a.xml"))


# ---- XML ---------------------------------------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
HOSTILE = {
    "entities that grow": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]>' + xml(box("&l11;", 1, 2, 3)),
    "an entity that is a file": '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    + xml("&f;"),
    "an unknown encoding": '<?xml version="1.0" encoding="no-such-code"?>' + xml(),
    "an encoding that is no text": '<?xml version="1.0" encoding="base64"?>' + xml(),
    "an encoding of several bytes": '<?xml version="1.0" encoding="shift_jis"?>' + xml(),
    "a byte that is no UTF-8": xml().replace("n01440764", "\udcff"),
    "no end of tags": "<a>" * 100_000,
    "tags in tags": "<a>" * 100_000 + "</a>" * 100_000,
    "numbers of Python alone": xml(box("1_0", 1, 20, 20)),
    "digits of another script": xml(box("\u0661", 1, 20, 20)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_xml_is_a_broken_example(tmp_path, content):
    (tmp_path / "a.xml").write_bytes(content.encode("utf-8", "surrogateescape"))
    error = broken(read_xml, tmp_path / "a.xml")
    assert error.kind == "annotation"
    assert len(str(error)) < 400


def test_a_document_type_hides_in_no_encoding(tmp_path):
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "a.xml").write_bytes(("<!DOCTYPE annotation>" + xml()).encode(encoding))
        assert "document type" in str(broken(read_xml, tmp_path / "a.xml"))
        (tmp_path / "a.xml").write_bytes(xml().encode(encoding))
        assert read_xml(tmp_path / "a.xml").size == (40, 30)


def test_text_of_a_file_is_shown_short_printable_and_on_one_line():
    assert brief("a\n b") == "a b"
    assert brief("\x1b[31mred") == "\\x1b[31mred"
    assert len(brief("x" * 5000)) < 120


# ---- mutated files -----------------------------------------------------------------------------

# A mutation: place and length, each as a share of the file, and what to write there.
PIECES = st.sampled_from([b"", b"\0", b"\xff", b"9" * 400, b"-1", b"nan", b"<", b",", b"\n", b"\t"])
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 0.2), PIECES | st.binary(max_size=8)),
    min_size=1,
    max_size=6,
)


def mutated(content, changes):
    for place, share, piece in changes:
        start = int(place * len(content))
        content = content[:start] + piece + content[start + int(share * len(content)) :]
    return content


TABLE = "image_id,wnid,width,height,xmin,ymin,xmax,ymax\n" + "".join(
    f"a{i},n01440764,40,30,{i},2,{i + 9},20\n" for i in range(9)
)
SOLUTION = "ImageId,PredictionString\n" + "".join(f"a{i},n01440764 1 2 3 4\n" for i in range(9))
TINY = "".join(f"val_{i}.JPEG\tn01440764\t{i}\t2\t{i + 9}\t20\n" for i in range(9))
FILES = {
    "xml": (xml().encode(), read_xml),
    "box table": (TABLE.encode(), read_box_table),
    "solution": (SOLUTION.encode(), read_solution),
    "JPEG": (encoded(photo()), load_rgb),
    "progressive JPEG": (encoded(photo(), progressive=True), load_rgb),
    "PNG": (encoded(photo(40, 30), "PNG"), load_rgb),
    "GIF": (encoded(photo(40, 30), "GIF"), load_rgb),
    "TIFF": (encoded(photo(40, 30), "TIFF", compression="tiff_lzw"), load_rgb),
    "WebP": (encoded(photo(40, 30), "WEBP"), load_rgb),
    "BMP": (encoded(photo(40, 30), "BMP"), load_rgb),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", FILES)
def test_a_mutated_file_raises_nothing_but_our_own_errors(tmp_path_factory, kind):
    path = tmp_path_factory.mktemp("mutated") / "a"
    content, read = FILES[kind]

    @settings(max_examples=150, deadline=5000)
    @given(CHANGES)
    def check(changes):
        path.write_bytes(mutated(content, changes))
        with suppress(UserError):
            read(path)

    check()


def test_mutated_annotations_of_tiny_imagenet_break_examples_alone(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    (root / "val/images").mkdir(parents=True)
    for i in range(9):
        photo(64, 64).save(root / f"val/images/val_{i}.JPEG")

    @settings(max_examples=60, deadline=5000)
    @given(CHANGES)
    def check(changes):
        (root / "val/val_annotations.txt").write_bytes(mutated(TINY.encode(), changes))
        try:
            data = TinyImageNet(root=str(root))
        except UserError:
            return
        assert data.fingerprint()
        for index in range(len(data)):
            with suppress(ExampleError):
                assert data[index].image.size == (64, 64)

    check()
