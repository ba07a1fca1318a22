"""Run `snakemake --lint`; every finding but the advice to use conda or containers is an error (pip installs the pins here)."""

import re
import subprocess
import sys

found = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True)
findings = re.findall(r"^    \* (.*)$", found.stdout + found.stderr, flags=re.MULTILINE)
others = [
    finding
    for finding in findings
    if not finding.startswith("Specify a conda environment or container")
]
if others or (found.returncode and not findings):
    sys.exit("\n".join(others) or found.stderr)
print(f"snakemake --lint: no findings ({len(findings)} about conda left out)")
