"""Where the checkout's folders are, and its scripts as modules."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT / ".." / "shared"
"""What developers have beside the checkout; tests that need it skip where it is missing."""


def load_script(name):
    """Return scripts/NAME.py as a module; it finds the scripts beside it, as when it is run."""
    if str(ROOT / "scripts") not in sys.path:
        sys.path.append(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
