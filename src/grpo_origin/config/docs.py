"""The reference of all settings as Markdown, made from the settings models: `python -m grpo_origin.reference`."""

from __future__ import annotations

import inspect

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from grpo_origin.config.fields import Section
from grpo_origin.config.schema import AxisSettings, ResourceSettings, Settings, StageResources
from grpo_origin.rl.method import Method, find, names

HEAD = """# Configuration reference

Made from the settings models by `make docs`; a test keeps it in step. Keys are written as in YAML, `section.key`. Choices that the
paper (arXiv 2510.15990) does not fix are marked *assumption*. Unknown keys are errors. How to use all this: `config/README.md`.
"""


def _rows(section: type[Section], prefix: str) -> list[str]:
    rows = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        default = "required" if field.default is PydanticUndefined else f"`{field.default!s}`"
        rows.append(
            f"| `{prefix}{name}` | {default} | {_bounds(section, name)} | {field.description} |"
        )
    return rows


def _bounds(section: type[Section], name: str) -> str:
    schema = section.model_json_schema()["properties"][name]
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    if "enum" in schema:
        found = [", ".join(f"`{value}`" for value in schema["enum"])]
    return ", ".join(found)


def _sections(section: type[Section], prefix: str) -> dict[str, type[Section]]:
    found = {prefix: section}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= _sections(field.annotation, f"{prefix}{name}.")
    return found


def reference() -> str:
    """The whole page."""
    lines = [HEAD]
    sections = {"": Settings, "axes.{name}.": AxisSettings} | _sections(Settings, "")
    stages = ResourceSettings.model_fields
    sections = {
        name: found
        for name, found in sections.items()
        if found not in (ResourceSettings, StageResources)
    }
    sections[f"resources.{{{','.join(stages)}}}."] = StageResources
    sections["methods.{name}."] = Method
    sections |= {f"methods.{name}.": find(name) for name in names()}
    for prefix, section in sections.items():
        lines += [
            f"## {prefix.rstrip('.') or 'Top level'}",
            "",
            inspect.cleandoc(section.__doc__ or ""),
            "",
        ]
        shared = (
            _rows(Method, prefix) if issubclass(section, Method) and section is not Method else []
        )
        if rows := [row for row in _rows(section, prefix) if row not in shared]:
            lines += ["| key | default | allowed | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(reference(), end="")
