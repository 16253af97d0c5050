"""The pictures and small maps that a run keeps for the report's gallery."""

from __future__ import annotations

GALLERY_MAP = 28  # side of the largest map kept for the gallery
