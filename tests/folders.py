"""A run's folder with made-up parts."""

from gradcam_bench.store.parts import Store

RUN = {"config_hash": "a", "identity": {"seed": 0, "model": {"name": "x"}}, "config": {}}
OTHER = {**RUN, "config_hash": "b", "identity": {"seed": 1, "model": {"name": "x"}}}


def store(path, n=10, part=4, run=None, **options):
    return Store(path, run or RUN, n_images=n, part_size=part, **options)


def row(image, **values):
    return {"image_id": f"i{image}", "method": "grad_cam", "layer": "layer4", **values}


def rows(images):
    return [
        row(i, label=i % 3, box_iou=i / 20, deletion_curve=[0.0, 1.0], error=None) for i in images
    ]


def pictures(images):
    return [
        row(i, jpeg=b"jpeg", boxes=[[0.0, 0.0, 1.0, 1.0]], heatmap=b"1", heatmap_h=1, heatmap_w=1)
        for i in images
    ]


def broken(image):
    return row(image, error=f"image i{image} cannot be read")


def fill(s, *parts, seconds=1.0):
    for part in parts or range(s.n_parts):
        images = s.images_of(part)
        s.write_part(part, rows(images), pictures(images), seconds=seconds)
    return s
