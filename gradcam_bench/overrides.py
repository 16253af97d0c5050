"""The words of a command, held against the keys that there are; and what Hydra says of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from gradcam_bench.config import GROUPS, check_key, schema_keys
from gradcam_bench.errors import UserError, nearest

FLAGS = {
    "-m": 0, "--multirun": 0, "--run": 0, "-r": 0, "--resolve": 0, "--hydra-help": 0,
    "--shell-completion": 0, "-sc": 0, "--cfg": 1, "-c": 1, "--config-dir": 1, "-cd": 1,
    "--config-name": 1, "-cn": 1, "--config-path": 1, "-cp": 1, "--package": 1, "-p": 1,
    "--info": 1, "-i": 1, "--experimental-rerun": 1,
}  # fmt: skip
"""The options of Hydra that the command line hands on, and how many words follow each."""

_WORD = re.compile(r"(?P<mark>\+\+|\+|~)?(?P<key>[^=]*)(?P<value>=.*)?", re.S)

_NOISE = re.compile(
    r"To append to your config|HYDRA_FULL_ERROR|hydra\.cc|^\s*(full_key|object_type|"
    r"reference_type)\b|^Config search path|^\s*provider="
)


def check_words(words: Sequence[str], *, verbs: Sequence[str] = ()) -> None:
    """Refuse words that are no `key=value`, and keys that there are not, wherever they stand.

    Hydra adds `+key=value` and `++key=value` to any config; a run would go on without them.

    Args:
        words: of a command without its verb; Hydra's own options may be among them.
        verbs: that might have been meant.

    Raises:
        UserError: with the nearest word.
    """
    skip = 0
    for word in words:
        if skip:
            skip -= 1
        elif word.startswith("-"):
            name, given, _ = word.partition("=")
            if name not in FLAGS:
                raise UserError(f"There is no option {name}.{_nearest_option(name)} {_HELP}")
            skip = 0 if given else FLAGS[name]
        else:
            _check_word(word, verbs)


_HELP = "All keys and verbs: gradcam-bench --help"

_OWN_OPTIONS = ("--help", "--version")


def _nearest_option(name: str) -> str:
    return nearest(name, [*_OWN_OPTIONS, *FLAGS], limit=1)


def _check_word(word: str, verbs: Sequence[str]) -> None:
    found = _WORD.fullmatch(word)
    assert found is not None
    key = re.split(r"[@:]", found["key"])[0]
    if found["value"] is None and found["mark"] != "~":
        if word in verbs:
            raise UserError(f"A verb comes first: gradcam-bench {word} ...")
        if verbs and os.path.exists(word):
            raise UserError(
                f"{word} is a file or a folder: say what to do with it, gradcam-bench explain "
                f"{word} (a picture), or status or report {word} (a run)."
            )
        known = [*verbs, *GROUPS, *schema_keys()]
        raise UserError(f"{word!r} is neither a verb nor key=value.{nearest(word, known)} {_HELP}")
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        return
    if not key:
        raise UserError(f"{word!r} has no key in front of '='. {_HELP}")
    check_key(key.lstrip("/"))
    if found["value"] is not None:
        _check_grammar(word)


def _check_grammar(word: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise UserError(
            f"{word!r} cannot be read as key=value: lists are [a,b], and a value with spaces, "
            f"brackets or '=' in it is quoted twice: 'key=\"a = b\"'."
        ) from error


def user_error(error: Exception) -> UserError:
    """Return what Hydra or OmegaConf says of a config, in short and with what to do about it.

    Args:
        error: of composing a config, or of reading a key of it.
    """
    message = _told_choice(error) or _told_key(error) or _kept_lines(error)
    choice = re.search(r"Could not find '(\w+)/([^']*)'", message)
    if choice is not None:
        options = re.findall(r"^\t(\S+)", message, re.M)
        message = f"{choice[0]}.{nearest(choice[2], options)} Files there: {', '.join(options)}."
    if choice is not None and choice[1] == "model":
        message += (
            "\nAny other torchvision classifier: model=torchvision model.name=NAME; "
            "any other CNN: model=custom model.factory=package.module:function."
        )
    return UserError(message)


_CHOICES = re.compile(r"Invalid value (?P<given>'.*'), expected one of \[(?P<known>[^]]*)\]")
"""What OmegaConf says of a word that is none of an Enum's."""


def _told_choice(error: BaseException) -> str | None:
    """Return a sentence on a value that is none of a key's choices, None where that is not it."""
    cause = error.__cause__ or error
    unknown = _CHOICES.match(str(cause))
    if unknown is None:
        return None
    key = getattr(cause, "full_key", None) or "A key"
    return f"{key} expects one of {unknown['known']}, got {unknown['given']}."


def _kept_lines(error: BaseException) -> str:
    """Return the text of an error and of what caused it, without advice that leads astray."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        lines += [line for line in str(seen).splitlines() if line.strip()]
        seen = seen.__cause__
    return "\n".join(dict.fromkeys(line for line in lines if not _NOISE.search(line)))


def _told_key(error: BaseException) -> str | None:
    """Return a sentence on a key that a node does not have, None where that is not the error."""
    from omegaconf import DictConfig
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    seen: BaseException | None = error
    while seen is not None:
        node = getattr(seen, "parent_node", None)
        if isinstance(seen, (ConfigAttributeError, ConfigKeyError)) and isinstance(
            node, DictConfig
        ):
            full, key = str(seen.full_key), str(seen.key)
            keys = [str(one) for one in node if one not in ("_target_", "hydra")]
            where = re.search(r"In '([^']*)'", str(error))
            at = f"{where[1]}.yaml: " if where else ""
            told = ", ".join(keys) if len(keys) < 40 else "gradcam-bench --help"
            return f"{at}There is no key {full!r}.{nearest(key, keys)} Keys here: {told}."
        seen = seen.__cause__ or seen.__context__
    return None
