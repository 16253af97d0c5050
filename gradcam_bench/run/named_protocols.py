"""A protocol's name means its published choices: one that was changed takes a name of its own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from gradcam_bench.config import config_dir
from gradcam_bench.errors import UserError
from gradcam_bench.localization.protocol import Protocol, protocol_of

_NAME = re.compile(r"\w[\w.-]*")


def with_named_protocols(config: DictConfig) -> DictConfig:
    """Return a run's config with every protocol under its own name, in the same order.

    `protocols.gradcam2017.threshold=0.3 protocols.gradcam2017.name=mine` is the protocol `mine`,
    whose source says what was changed. A config without such names is returned as it is.

    Raises:
        UserError: a name has characters that column names cannot carry, or is taken.
    """
    names = {key: (node or {}).get("name", key) for key, node in config.protocols.items()}
    renamed = {key: name for key, name in names.items() if name != key}
    if not renamed:
        return config
    nodes: dict[str, Any] = {}
    for key, node in config.protocols.items():
        values: Any = OmegaConf.to_container(node, resolve=True)
        name = names[key]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(
                f"protocols.{key}.name expects letters, digits, '_', '-' and '.', got {name!r}."
            )
        if name in nodes or name in (set(names) - {key}):
            raise UserError(
                f"protocols.{key}.name={name} is taken by another protocol of this run; choose "
                f"another name, or leave {name} out of protocol=[...]."
            )
        if key in renamed:
            changes = _changes(key, values)
            values["source"] = (
                f"{values.get('source', '')}; changed: {changes}"
                if changes
                else (values.get("source", ""))
            )
        nodes[name] = values
    config = config.copy()
    with open_dict(config):
        config.protocols = nodes
    return config


def check_published(protocols: Sequence[Protocol]) -> None:
    """Refuse a protocol that bears a published name without being the published one.

    Tables and comparisons with papers name a protocol, not its eighteen choices.

    Raises:
        UserError: there is one; the message lists the differences and how to rename it.
    """
    for protocol in protocols:
        published = published_protocol(protocol.name)
        if published is None:
            continue
        differing = [
            f"{field.name} is {getattr(protocol, field.name)}, "
            f"{getattr(published, field.name)} in conf/protocol/{protocol.name}.yaml"
            for field in dataclasses.fields(Protocol)
            if field.name != "source"
            and getattr(protocol, field.name) != getattr(published, field.name)
        ]
        if differing:
            raise UserError(
                f"protocols.{protocol.name} is changed ({'; '.join(differing)}), so it may not "
                "stand in tables under that name. Give it another one: "
                f"protocols.{protocol.name}.name=mine"
            )


def published_protocol(name: str) -> Protocol | None:
    """Return the protocol of that name in the package's conf/protocol, None where there is none."""
    path = config_dir() / "protocol" / f"{name}.yaml"
    if not path.is_file():
        return None
    return protocol_of(yaml.safe_load(path.read_text(encoding="utf-8")), name)


def _changes(key: str, values: dict[str, Any]) -> str:
    """Return what differs from the published protocol: "threshold 0.3, 0.15 there"."""
    published = published_protocol(key)
    if published is None:
        return ""
    told = []
    for name, value in values.items():
        there = getattr(published, name, value)
        there = list(there) if isinstance(there, tuple) else there
        if name not in ("name", "source") and there != value:
            told.append(f"{name} {value}, {there} there")
    return "; ".join(told)
