"""Randomness that depends on (seed, image_id) alone: batches, shards and order change no number."""

from __future__ import annotations

import hashlib

import numpy as np


def image_rng(seed: int, image_id: str, purpose: str) -> np.random.Generator:
    """Return the generator of everything random about one image, for one purpose."""
    digest = hashlib.blake2b(f"{purpose}/{image_id}".encode(), digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])
