import os
import sys
from pathlib import Path

# Tests run in a process a core (pytest -n auto), each with one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))  # toys.py
