"""The only loop: examples to batches to maps to rows, part by part."""
