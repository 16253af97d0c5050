"""Networks by name: weights, preprocessing, layers, and batch norm folded for speed."""
