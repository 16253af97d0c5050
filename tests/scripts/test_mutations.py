"""Which changes scripts/mutate.py makes to a module, and what it leaves alone."""

from repository import load_script

SOURCE = '''"""A docstring of 3 words."""
import logging

LEVELS: tuple[int, ...] = (1, True)


class Thing:
    def __repr__(self) -> str:
        return "a" + "b"


def area(box: list[float], least: float = 0.5) -> float | None:
    """Return 2 or more."""
    assert len(box) == 4
    if not box:
        raise ValueError(f"expected {1 + 1}")
    logging.warning("no %d", 1 + 1)
    print(len(box))
    box.sort()
    é = box[2] - box[0]
    return é if é > least else None
'''
EXPECTED = {
    (4, "1", "(1 + 1)"), (4, "1", "(1 - 1)"), (4, "True", "False"),
    (12, "0.5", "(0.5 + 1)"), (12, "0.5", "(0.5 - 1)"),
    (15, "not box", "(not (not box))"), (15, "not box", "(box)"),
    (20, "2", "(2 + 1)"), (20, "2", "(2 - 1)"), (20, "0", "(0 + 1)"), (20, "0", "(0 - 1)"),
    (20, "-", "+"),
    (21, "é if é > least else None", "None"), (21, "é > least", "(not (é > least))"),
    (21, ">", ">="), (19, "box.sort()", "pass"),
}  # fmt: skip


def test_operators_constants_conditions_and_results_change_and_nothing_else():
    script = load_script("mutations")
    found = {(m.line, m.before, m.after) for m in script.mutations(SOURCE)}
    assert found == EXPECTED


def test_a_mutation_changes_its_own_text_only():
    script = load_script("mutations")
    for change in script.mutations(SOURCE):
        after = change.apply(SOURCE)
        assert after[: change.start] == SOURCE[: change.start]
        assert after[change.start :].startswith(change.after)
        assert after.endswith(SOURCE[change.end :])
        assert script.compiles(change, SOURCE)
