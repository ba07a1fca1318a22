"""Test hooks, active in every Python process that has this folder on PYTHONPATH.

SLOW_STEPS: seconds that each training step takes longer, so that a stage of a tiny model can be
caught in the middle; its results stay the same. The executor's pause between two looks at the
queue, which grows to minutes, stays at a second.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import time


def _slow(function):
    def slowed(*args, **kwargs):
        time.sleep(float(os.environ.get("SLOW_STEPS", "0")))
        return function(*args, **kwargs)

    return slowed


def _training(module):
    module.learning_rate = _slow(module.learning_rate)


def _rl(module):
    module.TaskReward.__call__ = _slow(module.TaskReward.__call__)


def _executor(module):
    module.Executor.next_seconds_between_status_checks = property(
        lambda self: 1, lambda self, value: None
    )


HOOKS = {
    "grpo_origin.training.loop": _training,
    "grpo_origin.rl.trainer": _rl,
    "snakemake_executor_plugin_slurm": _executor,
}


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in HOOKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            HOOKS[name](module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder())
