"""Configurations read and checked: the one YAML loader, and every complaint as one line.

The workflow, the command line and the library all start here.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from grpo_origin.config.fields import ConfigError, Section, section_of
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import AxisSettings

# Keys of earlier versions and what they are called now.
RENAMED = {
    "grpo": "rl",
    "prompts": "trained_on",
    "resources.grpo": "resources.rl",
    "runtime.compile": "numerics.compile",
    "runtime.device": "numerics.device",
    "runtime.precision": "numerics.precision",
    "theory.prompts": "theory.trained_on",
}


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML in which no key is set twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                line = node.value[i][0].start_mark.line + 1
                raise ValueError(
                    f"key {key!r} is set twice, again in line {line}: set each key once"
                )
        return node


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of `key: value` pairs; raises ConfigError, one line that names the file."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold `key: value` pairs, as config/config.yaml does")
    return content


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` merged over it, key by key as Snakemake does; lists are replaced."""
    out = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else copy.deepcopy(value)
    return out


def read_config(*files: str | Path) -> dict[str, Any]:
    """The configuration of YAML files, each merged over those before it; raises ConfigError."""
    config: dict[str, Any] = {}
    for file in files:
        config = merged(config, read_yaml(file))
    return config


def read_settings(*files: str | Path) -> Settings:
    """Settings of YAML files, each merged over those before it; raises ConfigError."""
    return load_settings(read_config(*files))


def load_settings(config: Mapping[str, Any]) -> Settings:
    """Validate a merged configuration (a mapping as read from YAML).

    Raises ConfigError, one line that names the key and what is allowed.
    """
    config = dict(config)
    for old, new in RENAMED.items():
        if _holds(config, old.split(".")):
            raise ConfigError(f"{old}: this key is called {new} now")
    if isinstance(config.get("axes"), Mapping):
        config["axes"] = {name: axis for name, axis in config["axes"].items() if axis is not None}
    try:
        return Settings.model_validate(config)
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None


def one_line(error: ValidationError) -> str:
    """The first problem of a pydantic error as `key: what is wrong (what is allowed)`."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _known_keys(where[:-1])
        close = difflib.get_close_matches(where[-1], known, n=1)
        guess = f", did you mean {close[0]!r}?" if close else ""
        message = f"unknown key{guess} (allowed: {', '.join(known)})"
    elif first["type"] == "missing":
        message = "missing: it must be set"
    elif not first["msg"].startswith("Value error"):
        message += f", not {first['input']!r}"
    key = ".".join(where)
    more = len(error.errors()) - 1
    text = f"{key + ': ' if key else ''}{message}{f' (and {more} more)' if more else ''}"
    return text.replace("\n", " ")


def _holds(config: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(config, Mapping) or part not in config:
            return False
        config = config[part]
    return True


def _known_keys(path: list[str]) -> list[str]:
    section: type[Section] = Settings
    for i, part in enumerate(path):
        if part == "axes":
            section = AxisSettings
        elif i and path[i - 1] == "axes":
            continue
        else:
            inner = section_of(section.model_fields[part].annotation)
            if inner is None:
                return []
            section = inner
    return list(section.model_fields)


def differing(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys, dotted, whose values differ between two nested mappings."""
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differing(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}"
