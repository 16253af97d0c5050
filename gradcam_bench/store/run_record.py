"""Every key that run.json may have: its type, its meaning, and whether every run has it.

A key that is not described here cannot be written: to add one, add its line to `RunRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict, get_args, get_origin, get_type_hints

from gradcam_bench.errors import nearest


class _Always(TypedDict):
    """The keys of every run that this version begins."""

    command: Annotated[str, "the command line that began the run; it can be pasted"]
    config_hash: Annotated[str, "hash of `identity`; every part of the run carries it"]
    model: Annotated[str, "name of the network"]
    weights: Annotated[str, "where its weights come from"]
    layers: Annotated[list[str], "module paths of the layers, as `layers=` was resolved"]
    class_names: Annotated[list[str], "what the labels mean, in their order"]
    n_images: Annotated[int, "images of the whole run, over all shards"]
    data_fingerprint: Annotated[str, "hash of the data set's ids, labels and boxes"]
    device: Annotated[str, "`cpu`, or the name of the GPU"]
    threads: Annotated[int, "CPU threads of the network's operations"]
    tf32: Annotated[bool, "whether matrix products may have been rounded to TensorFloat-32"]
    started: Annotated[str, "when the process that computed the latest part began, UTC, ISO 8601"]
    machine: Annotated[str, "a hash that tells machines apart without naming them"]
    platform: Annotated[str, "operating system and processor family"]
    python: Annotated[str, "version of Python"]
    versions: Annotated[dict[str, str], "versions of the packages that decide a number"]
    commit: Annotated[str | None, "commit of the checkout, `-dirty` where modified; null: a wheel"]
    identity: Annotated[dict[str, Any], "everything that decides a number, hashes of code included"]
    config: Annotated[dict[str, Any], "the whole config, resolved; its keys: `--cfg job`"]
    format: Annotated[int, "version of the folder's layout"]
    n_parts: Annotated[int, "part files of the complete run"]
    complete: Annotated[bool, "whether all of them are there"]


class RunRecord(_Always, total=False):
    """The content of run.json."""

    scorer: Annotated[str, "who scored perturbed images; missing without faithfulness"]
    scorer_because: Annotated[str, "what decided about the scorer"]
    thresholds: Annotated[dict[str, Any], "thresholds that `thresholds_from=` looked up, and where"]
    seconds: Annotated[float, "time that computing the parts took, over all processes; at the end"]
    errors: Annotated[int, "broken images; at the end"]
    computed: Annotated[
        list[dict[str, Any]],
        "an entry a process: the numbers of its `parts`, and its `started`, `machine`, `platform`, "
        "`python`, `versions`, `commit`, `device`, `threads` and `scorer`; at the end",
    ]


KEYS: dict[str, tuple[Any, str]] = {
    name: get_args(hint) for name, hint in get_type_hints(RunRecord, include_extras=True).items()
}
"""Type and meaning of each key by its name."""

ALWAYS = _Always.__required_keys__
"""The names of the keys that every run has."""


def check_record(content: Mapping[str, Any]) -> None:
    """Raise an AssertionError for a key that nothing describes, or a value of another type.

    Such a thing is a mistake in the code, not a user's. Missing keys are none: older runs lack
    some.
    """
    for name, value in content.items():
        if name not in KEYS:
            raise AssertionError(
                f"run.json has no key {name!r}.{nearest(name, list(KEYS))} Describe it in "
                "gradcam_bench/store/run_record.py."
            )
        if not _fits(value, KEYS[name][0]):
            raise AssertionError(f"run.json's {name} expects {type_name(KEYS[name][0])}: {value!r}")


def type_name(kind: Any) -> str:
    """Return a type as the documentation writes it."""
    return (
        kind.__name__
        if isinstance(kind, type) and not get_args(kind)
        else str(kind).replace("typing.", "")
    )


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of a type: a class, a union, a list or a mapping of text."""
    if kind is Any:
        return True
    origin, inside = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inside[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            isinstance(key, str) and _fits(item, inside[1]) for key, item in value.items()
        )
    if inside:
        return any(_fits(value, one) for one in inside)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)
