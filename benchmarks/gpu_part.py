"""What each part of gpu.py gets: a share of the time, a scratch folder, a place for its results.

Results go to one JSON file as they come, so what was measured before a part ends, however it ends,
is kept. Knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from grpo_origin.config.load import merged, read_config
from grpo_origin.jobs.files import write_json
from grpo_origin.study import Study, open_study

CONFIG = Path(__file__).parents[1] / "config"
# The paper's configuration in sizes that a CPU takes a second for; its numerics stay.
TINY: dict[str, Any] = {
    "run": "tiny",
    "model": {"layers": 1, "width": 32, "heads": 2, "feed_forward": 64},
    "pretrain": {"samples": 512, "batch_size": 64},
    "sft": {"samples": 64, "batch_size": 32, "epochs": 1},
    "rl": {"steps": 4, "prompts_per_step": 4, "group_size": 4, "evaluate_prompts": 8},
    "evaluation": {"prompts": 32},
    "runtime": {"threads": 1},
}


@dataclass(frozen=True)
class Part:
    """A part under way; times are of time.monotonic, which all processes of a machine share."""

    name: str
    folder: Path
    results: Path
    device: torch.device
    tiny: bool
    rl: bool  # whether trl is there
    console: int  # file descriptor of what the user sees
    started: float
    ends: float

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.ends - time.monotonic()

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def scale(self, whole: float, tiny: float) -> float:
        """A number of the real run, or of a tiny one."""
        return tiny if self.tiny else whole

    def study(self, *changes: dict[str, Any], paper: bool = True) -> Study:
        """The paper's configuration (or the default one) on this device, with changes; tiny where
        that is asked for.
        """
        config = read_config(CONFIG / "config.yaml", *([CONFIG / "paper.yaml"] if paper else []))
        tiny = TINY if self.tiny else {}
        for change in (tiny, {"numerics": {"device": self.device.type}}, *changes):
            config = merged(config, change)
        return open_study(config)

    def now(self) -> float:
        """The time when all work given to the device so far is done."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def say(self, text: str) -> None:
        """A line for the user, with the time since the start; it goes to the log too."""
        line = f"[{time.monotonic() - self.started:6.1f} s] {self.name}: {text}\n"
        os.write(self.console, line.encode())
        if not os.path.sameopenfile(1, self.console):
            print(line, end="", flush=True)

    def known(self) -> dict[str, Any]:
        """All results so far, by part."""
        return json.loads(self.results.read_text(encoding="utf-8"))

    def put(self, name: str, result: dict[str, Any]) -> None:
        """Keep a result, in place of an earlier one of that name, and say it."""
        everything = self.known()
        everything.setdefault(self.name, {})[name] = result
        write_json(self.results, everything)
        self.say(f"{name}: {shown(result)}")

    def attempt(
        self, name: str, work: Callable[[], dict[str, Any]], least: float = 0.0
    ) -> dict[str, Any] | None:
        """Do some work and keep what it gives, with its seconds, or why it failed.

        Left out, which is said, if fewer than `least` seconds are left.
        """
        if self.left < least and not self.tiny:
            self.put(name, {"skipped": f"{max(self.left, 0):.0f} s left, {least:.0f} are needed"})
            return None
        began = time.monotonic()
        try:
            found = work()
        except Exception as error:
            traceback.print_exc()
            line = str(error).strip().splitlines()[0] if str(error).strip() else ""
            self.put(name, {"failed": f"{type(error).__name__}: {line}"[:300]})
            return None
        finally:
            if self.cuda:
                with contextlib.suppress(Exception):  # after an error of the device it fails too
                    torch.cuda.empty_cache()
        self.put(name, found | {"seconds": time.monotonic() - began})
        return found


@contextlib.contextmanager
def cheap_compiler(part: Part) -> Iterator[None]:
    """On a tiny run torch.compile captures graphs but makes no code of them: that takes minutes."""
    if not part.tiny:
        yield
        return
    with mock.patch.object(torch, "compile", partial(torch.compile, backend="eager")):
        yield


def shown(result: dict[str, Any]) -> str:
    """A result as one line, what is nested left out."""
    values = ((name, value) for name, value in result.items() if not isinstance(value, dict | list))
    return "  ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in values
    )


def failures(results: dict[str, Any]) -> list[str]:
    """What failed or is not ok, as `part: result`."""
    return [
        f"{part}: {name}"
        for part, found in results.items()
        for name, result in found.items()
        if isinstance(result, dict) and ("failed" in result or result.get("ok") is False)
    ]
