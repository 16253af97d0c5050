"""Data sets: each hands out annotated images in a fixed order."""
