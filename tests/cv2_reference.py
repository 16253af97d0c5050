"""What OpenCV draws around a foreground, and the IoU of WSOL's evaluation code."""

import cv2
import numpy as np


def cv2_contours(mask):
    image = mask.astype(np.uint8) * 255
    return cv2.findContours(image, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]


def cv2_boxes(contours, shape):
    height, width = shape
    boxes = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    return np.array(boxes, np.int64).reshape(-1, 4)


def inclusive_iou(boxes, truth):
    a, b = boxes[:, None, :], np.trunc(truth)[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = np.maximum(high - low + 1, 0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2] + 1).prod(-1) for box in (a, b))
    return (both / (area_a + area_b - both)).max()
