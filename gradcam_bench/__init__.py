"""gradcam_bench: how well does Grad-CAM localize and explain, and is that number true?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradcam_bench.cam.gradcam import GradCAM
    from gradcam_bench.report.figures.overlay import overlay

    __version__: str

__all__ = ["GradCAM", "__version__", "overlay"]


def __getattr__(name: str) -> Any:
    """Import what the package offers on first use: reporting must not import torch."""
    if name == "GradCAM":
        from gradcam_bench.cam.gradcam import GradCAM

        return GradCAM
    if name == "overlay":
        from gradcam_bench.report.figures.overlay import overlay

        return overlay
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("gradcam-bench")
        except metadata.PackageNotFoundError:  # run from a checkout
            return "not installed"
    raise AttributeError(f"module 'gradcam_bench' has no attribute {name!r}")
