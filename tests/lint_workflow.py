"""Run `snakemake --lint`; every finding is an error but the advice to use conda or containers.

pip installs the pinned packages here.
"""

import re
import subprocess
import sys

result = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True)
findings = re.findall(r"^    \* (.*)$", result.stdout + result.stderr, flags=re.MULTILINE)
others = [
    finding
    for finding in findings
    if not finding.startswith("Specify a conda environment or container")
]
if others or (result.returncode and not findings):
    sys.exit("\n".join(others) or result.stderr)
print(f"snakemake --lint: no findings ({len(findings)} about conda left out)")
