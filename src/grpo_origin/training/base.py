"""A base model from outside: where `pretrain.base` lies, and what its files say of it.

A model folder of the user's or, named by its id, one of the Hugging Face hub. It is read only, and
nothing in it is run. Needs neither torch nor transformers, so that configurations are checked and
costs planned by it; `training.model` opens it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import PROVENANCE
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.provenance import content_fingerprint

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# What is read of a folder and fetched from the hub: settings, tokenizer, safetensors. No code and
# no pickles; `model*` leaves out the same weights in another layout.
READ = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "model*.safetensors")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
HEADER_LIMIT = 10**8  # bytes of a safetensors header, the format's own limit


@dataclass(frozen=True)
class Base:
    """A base model, `name` as the settings have it; every problem is a ConfigError of one line."""

    name: str
    folder: Path

    def error(self, problem: str) -> ConfigError:
        """A complaint about it."""
        where = "" if self.name == str(self.folder) else f" ({self.folder})"
        return ConfigError(f"pretrain.base: {self.name}{where}: {problem}")

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its config.json."""
        return self._json(CONFIG)

    @property
    def _text(self) -> dict[str, Any]:
        """The part of the config that is of the language model."""
        return {**self.config, **(self.config.get("text_config") or {})}

    @property
    def context(self) -> int | None:
        """Longest sequence in tokens; None if its config sets no limit."""
        return next((self._text[key] for key in CONTEXTS if key in self._text), None)

    @cached_property
    def weights(self) -> list[Path]:
        """Its safetensors files."""
        if (self.folder / WEIGHTS).is_file():
            return [self.folder / WEIGHTS]
        if not (self.folder / INDEX).is_file():
            pickles = sorted(self.folder.glob("*.bin"))
            held = f" ({pickles[0].name} is a pickle, which is never opened)" if pickles else ""
            raise self.error(
                f"holds no {WEIGHTS}{held}: save the model with save_pretrained of transformers"
            )
        named = self._json(INDEX).get("weight_map", {})
        return [self.folder / name for name in sorted(set(named.values()))]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its weights by name, from the headers of the files."""
        found: dict[str, tuple[int, ...]] = {}
        for path in self.weights:
            try:
                with open(path, "rb") as file:
                    size = int.from_bytes(file.read(8), "little")
                    header = json.loads(file.read(min(size, HEADER_LIMIT)))
                header.pop("__metadata__", None)
                end = max(entry["data_offsets"][1] for entry in header.values())
                found |= {name: tuple(entry["shape"]) for name, entry in header.items()}
            except OSError as error:
                raise self.error(f"{path.name} can't be read ({error.strerror})") from None
            except (ValueError, TypeError, KeyError, AttributeError):
                raise self.error(f"{path.name} is no safetensors file") from None
            if path.stat().st_size != 8 + size + end:
                raise self.error(f"{path.name} is not whole: copy it again")
        return found

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def matmul_parameters(self) -> int:
        """Parameters that multiply every token: all but an input embedding that is no output too.

        Tables of the vocabulary's size are embedding and output head, or one table that is both.
        """
        rows = self._text.get("vocab_size")
        tables = [shape for shape in self.shapes.values() if len(shape) == 2 and shape[0] == rows]
        return self.parameters - (math.prod(tables[0]) if len(tables) > 1 else 0)

    @cached_property
    def digest(self) -> str:
        """Digest of what is read of it, by which stages know a replaced base."""
        used = {path.name for path in self.weights}
        files = {path.name: path for pattern in READ for path in self.folder.glob(pattern)}
        read = [
            (name, path)
            for name, path in sorted(files.items())
            if name != PROVENANCE and (path.suffix != ".safetensors" or name in used)
        ]
        try:
            lines = [f"{name} {content_fingerprint(path)}" for name, path in read]
        except ArtefactError as error:
            raise self.error(f"a file of it can't be read ({error.problem})") from None
        return sha256("\n".join(lines).encode()).hexdigest()[:16]

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Tokens and their ids, as far as tokenizer.json says; none where there is no such file."""
        if not (self.folder / TOKENIZERS[0]).is_file():
            return {}
        written = self._json(TOKENIZERS[0])
        known = written.get("model", {}).get("vocab", {})
        ids = dict(known) if isinstance(known, dict) else {}
        return ids | {token["content"]: token["id"] for token in written.get("added_tokens", [])}

    def check(self) -> None:
        """Raise ConfigError unless this is a whole folder of a causal LM that needs no code."""
        if not (self.folder / CONFIG).is_file():
            raise self.error(
                f"is no model folder, it holds no {CONFIG}: name one that save_pretrained wrote"
            )
        if "quantization_config" in self.config:
            raise self.error("its weights are quantised, which can't be trained: name the original")
        if self.config.get("auto_map") and not _known_type(str(self.config.get("model_type"))):
            raise self.error(
                "it needs code of its own (auto_map), which is never run: name a model of an "
                "architecture that transformers has"
            )
        if not any((self.folder / name).is_file() for name in TOKENIZERS):
            raise self.error(
                f"holds no tokenizer ({' or '.join(TOKENIZERS)}): save it there with "
                "save_pretrained"
            )
        _ = self.shapes, self.digest

    def check_tokens(self, names: Sequence[str], axis: str) -> None:
        """Raise ConfigError unless its tokens are these (names by id), in which an axis is written.

        It may have more of them.
        """
        ids = {name: self.vocabulary.get(name, -1) for name in names}
        odd = [name for i, name in enumerate(names) if ids[name] != i]
        if odd:
            token = min(odd, key=ids.__getitem__)
            has = "another id for" if ids[token] >= 0 else "no"
            raise self.error(
                f"its tokenizer has {has} token {token!r}, with which axes.{axis} is written: that "
                "axis needs a model of its tokens, such as the pretrain folder of another run; a "
                "model of natural text needs axes of a text domain (docs/tasks.md)"
            )

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.error(f"{name} can't be read ({str(error).splitlines()[0]})") from None
        if not isinstance(content, dict):
            raise self.error(f"{name} holds no settings")
        return content


def _known_type(model_type: str) -> bool:
    """Whether transformers has models of a type; asked without importing it, which takes long."""
    from importlib.util import find_spec

    spec = find_spec("transformers")
    places = spec.submodule_search_locations if spec else None
    return any(
        Path(place, "models", model_type.replace("-", "_")).is_dir() for place in places or []
    )


def find_base(name: str, fetch: bool = False) -> Base:
    """The base of a setting `pretrain.base`: a folder, or a hub's model in this machine's cache.

    With `fetch` a hub's model that is not there is fetched; raises ConfigError if it can't be.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return Base(name, path)
    if os.path.lexists(path):
        raise ConfigError(f"pretrain.base: {name}: is a file: name the model's folder")
    if not HUB_ID.fullmatch(name) or path.parent.is_dir():
        raise ConfigError(
            f"pretrain.base: {name}: there is no such folder: name a model folder, or a model of "
            "the Hugging Face hub as owner/name"
        )
    return Base(name, _from_hub(name, fetch))


def _from_hub(name: str, fetch: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    kept: dict[str, Any] = {"repo_id": name, "allow_patterns": list(READ)}
    try:
        folder = Path(snapshot_download(**kept, local_files_only=True))
        Base(name, folder).check()
        return folder
    except (OSError, ValueError, ConfigError, ArtefactError) as error:
        problem = error
    if fetch:
        try:
            return Path(snapshot_download(**kept))
        except (OSError, ValueError, HfHubHTTPError) as error:
            problem = error
    reason = str(problem).splitlines()[0]
    raise ConfigError(
        f"pretrain.base: {name}: no folder of that name here, and no whole model of the Hugging "
        f"Face hub in this machine's cache ({reason}): run `hf download {name}` where the hub can "
        "be reached, or name a folder"
    ) from None
