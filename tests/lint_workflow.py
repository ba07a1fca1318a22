"""Run `snakemake --lint`: every finding is an error but the advice to use conda or containers.

pip installs the pinned packages here. `make lint` calls this.
"""

import re
import subprocess
import sys

ADVICE = "Specify a conda environment or container"

lint = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True)
findings = re.findall(r"^    \* (.*)$", lint.stdout + lint.stderr, flags=re.MULTILINE)
others = [finding for finding in findings if not finding.startswith(ADVICE)]
if others or (lint.returncode and not findings):
    sys.exit("\n".join(others) or lint.stderr)
print(f"snakemake --lint: no findings ({len(findings)} about conda left out)")
