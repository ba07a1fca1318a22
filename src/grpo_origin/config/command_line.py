"""Configuration files on Snakemake's command line, checked before Snakemake reads them.

Called by profiles/default. Snakemake answers a file that isn't there or isn't text with a traceback
and one that isn't YAML without its name, and lets the last of two equal keys win.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.load import read_yaml


def check_config_files(arguments: Sequence[str]) -> None:
    """Leave with one line that names the file if one can't be used, the default one included."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", default=[])
    named = parser.parse_known_args(arguments)[0].configfile
    try:
        for path in (*Path("config").glob("config.yaml"), *named):
            read_yaml(path)
    except ConfigError as error:
        sys.exit(f"config error: {error}")
