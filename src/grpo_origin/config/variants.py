"""Variants: the same run with one thing changed, each a configuration of its own.

`study.open_study` opens the configuration that `variant_config` gives, so a bad change is answered
as a bad setting of the run would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.load import merged
from grpo_origin.config.schema import Settings

# Sections that a variant may change: the others would give it other worlds or test prompts.
CHANGED = ("model", "pretrain", "sft", "rl", "lora", "methods", "trained_on", "numerics")
# What it may be limited to: names of axes, ratios, seeds.
LIMITS = ("axes", "ratios", "seeds")


def spelled_out(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with methods under names of their own as the variants that they mean.

    `methods: [grpo, {slow: {method: grpo, rl: {steps: 9}}}]` is `methods: [grpo]` with the variant
    `slow: {methods: [grpo], rl: {steps: 9}}`; what else stands beside `method` are its settings.
    Raises ConfigError for a name that a variant has.
    """
    entries, variants = config.get("methods"), config.get("variants") or {}
    if not isinstance(entries, (list, tuple)) or not isinstance(variants, Mapping):
        return config
    plain, named = [], {}
    for entry in entries:
        inner = [*entry.items()] if isinstance(entry, Mapping) else []
        if len(inner) != 1 or not isinstance(inner[0][1], Mapping) or "method" not in inner[0][1]:
            plain.append(entry)
            continue
        ((name, settings),) = inner
        if name in variants or name in named:
            raise ConfigError(f"methods: {name} is the name of a variant or method already")
        own = {key: value for key, value in settings.items() if key not in ("method", "rl")}
        named[name] = {"methods": [{settings["method"]: own}]}
        named[name] |= {"rl": settings["rl"]} if "rl" in settings else {}
    if not named:
        return config
    return {**config, "methods": plain, "variants": {**variants, **named}}


def variant_config(
    config: Mapping[str, Any], settings: Settings, name: str, changes: Any
) -> dict[str, Any]:
    """The configuration of a variant of a run whose `config` gives `settings`.

    Raises ConfigError, one line that names `variants.{name}`, for what is no change, for an unknown
    key, and for limits that leave no cell.
    """
    key = f"variants.{name}"
    if not isinstance(changes, Mapping) or not changes:
        raise ConfigError(f"{key}: write what it changes, such as {{rl: {{steps: 600}}}}")
    if unknown := [part for part in changes if part not in (*CHANGED, *LIMITS)]:
        allowed = ", ".join((*CHANGED, *LIMITS))
        raise ConfigError(f"{key}.{unknown[0]}: unknown key (allowed: {allowed})")
    limits = {part: _listed(key, part, changes[part]) for part in LIMITS if part in changes}
    out = merged(config, {part: value for part, value in changes.items() if part in CHANGED})
    out.pop("variants", None)
    out["seeds"] = _kept(key, "seeds", settings.seeds, limits)
    wanted = _kept(key, "axes", tuple(settings.axes), limits)
    axes: dict[str, Any] = {}
    for axis in wanted:
        ratios = [r for r in settings.axis_ratios(axis) if r in limits.get("ratios", (r,))]
        if ratios:
            axes[axis] = merged(config["axes"][axis], {"ratios": ratios, "theory": []})
    if not axes:
        raise ConfigError(f"{key}.ratios: none of its axes has one of these")
    return out | {"axes": axes}


def _listed(key: str, part: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, (list, tuple)) or not values:
        raise ConfigError(f"{key}.{part}: write a list of those that it is limited to")
    return tuple(str(value) if part == "ratios" else value for value in values)


def _kept(key: str, part: str, all_of: tuple[Any, ...], limits: Mapping[str, Any]) -> list[Any]:
    """Those of the run's axes or seeds that the variant is limited to."""
    wanted = limits.get(part, all_of)
    if odd := [value for value in wanted if value not in all_of]:
        known = ", ".join(map(str, all_of))
        raise ConfigError(f"{key}.{part}: {odd[0]!r} is none of the run's (it has: {known})")
    return [value for value in all_of if value in wanted]
