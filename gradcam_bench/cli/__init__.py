"""The words around a run: help, lists, the state of a folder, overlays of one's own pictures.

Nothing here loads torch, or Hydra, before it is needed: help and lists answer at once.
"""
