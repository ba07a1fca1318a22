"""The reference of all settings as Markdown, made from the settings models.

`grpo-origin docs` prints it; it hands in the sections of RL methods, which this room does not know.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from pydantic_core import PydanticUndefined

from grpo_origin.config.fields import Section, section_of
from grpo_origin.config.schema import ResourceSettings, Settings, StageResources
from grpo_origin.config.stages import AxisSettings

HEAD = """# Configuration reference

Made from the settings models by `make docs`; a test keeps it in step. Keys are written as in YAML,
`section.key`. Choices that the paper (arXiv 2510.15990) does not fix are marked *assumption*.
Unknown keys are errors. How to use all this: `config/README.md`.
"""
# JSON Schema's words, and pydantic's own for bounds that stand behind a validator.
BOUNDS = {
    **{"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"},
    **{"ge": "≥", "gt": ">", "le": "≤", "lt": "<"},
}


def reference(method: type[Section], methods: Mapping[str, type[Section]]) -> str:
    """The whole page; `method` holds the settings that all RL methods share, `methods` each one's.

    What a method only repeats of the shared settings is left out.
    """
    stages = ",".join(ResourceSettings.model_fields)
    sections: dict[str, type[Section]] = {
        "": Settings,
        "axes.{name}.": AxisSettings,
        **_nested(Settings, ""),
        f"resources.{{{stages}}}.": StageResources,
        "methods.{name}.": method,
    }
    lines = [HEAD]
    for prefix, section in sections.items():
        lines += _chapter(section, prefix, _rows(section, prefix))
    for name, section in methods.items():
        prefix = f"methods.{name}."
        shared = _rows(method, prefix)
        rows = [row for row in _rows(section, prefix) if row not in shared]
        lines += _chapter(section, prefix, rows)
    return "\n".join(lines).rstrip() + "\n"


def _chapter(section: type[Section], prefix: str, rows: list[str]) -> list[str]:
    title, text = prefix.rstrip(".") or "Top level", inspect.cleandoc(section.__doc__ or "")
    table = ["| key | default | allowed | meaning |", "|---|---|---|---|", *rows, ""]
    return [f"## {title}", "", text, "", *(table if rows else [])]


def _rows(section: type[Section], prefix: str) -> list[str]:
    """A row for each setting of a section that is no section itself."""
    schema = section.model_json_schema()["properties"]
    rows = []
    for name, field in section.model_fields.items():
        if section_of(field.annotation):
            continue
        default = "required" if field.default is PydanticUndefined else f"`{field.default!s}`"
        allowed = [
            f"{sign} {schema[name][key]:g}" for key, sign in BOUNDS.items() if key in schema[name]
        ]
        if "enum" in schema[name]:
            allowed = [f"`{value}`" for value in schema[name]["enum"]]
        rows.append(
            f"| `{prefix}{name}` | {default} | {', '.join(allowed)} | {field.description} |"
        )
    return rows


def _nested(section: type[Section], prefix: str) -> dict[str, type[Section]]:
    """The sections of a section by prefix; those of `resources` are alike and left out."""
    sections: dict[str, type[Section]] = {}
    for name, field in section.model_fields.items():
        kind = section_of(field.annotation)
        if kind and kind is not ResourceSettings:
            sections |= {f"{prefix}{name}.": kind} | _nested(kind, f"{prefix}{name}.")
    return sections
