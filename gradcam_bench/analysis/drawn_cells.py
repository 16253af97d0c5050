"""Which of a run's cells a figure draws when there are too many of them for one figure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from gradcam_bench.names import CONTROLS, Cell
from gradcam_bench.store.rows import cells


@dataclass(frozen=True)
class Drawn:
    """The cells that the figures of a run draw.

    Attributes:
        cells: in the order of the rows, the controls last.
        left_out: how many other cells the run has.
    """

    cells: list[Cell]
    left_out: int


def drawn_cells(rows: pd.DataFrame, *, always: Collection[Cell] = (), limit: int = 6) -> Drawn:
    """Return the cells to draw: those asked for, the controls, and as many others as there is room.

    Of several methods each stands for itself at one layer, its last, and the methods named first
    stay; of one method the layers nearest to the output stay.

    Args:
        rows: of one run, one per image, method and layer.
        always: cells that are drawn whatever the limit says, such as the best. One that the rows do
            not hold is ignored. A method among them is not drawn at its last layer as well.
        limit: how many cells one figure has room for.
    """
    pairs = cells(rows)
    controls = [pair for pair in pairs if pair[0] in CONTROLS]
    network = [pair for pair in pairs if pair[0] not in CONTROLS]
    asked = [pair for pair in network if pair in always]
    if len({method for method, _ in network}) > 1:
        shown = {method for method, _ in asked}
        last = {method: (method, layer) for method, layer in network}
        others = [cell for method, cell in last.items() if method not in shown]
    else:
        others = [pair for pair in reversed(network) if pair not in asked]
    room = max(limit - len(controls), 1) - len(asked)
    chosen = {*asked, *others[: max(room, 0)]}
    kept = [pair for pair in network if pair in chosen] + controls
    return Drawn(kept, len(pairs) - len(kept))
