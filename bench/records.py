# SPDX-License-Identifier: Apache-2.0
"""What the records of all measurements have in common: their origin, and the tables made from them."""

import datetime
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
README = ROOT / "bench" / "README.md"


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def machine() -> dict:
    return {"cpu": cpu_model(), "cpus": os.cpu_count(), "system": os.uname().release, "load_before": os.getloadavg()[0]}


def commit(measured_paths: list[str]) -> str:
    """The commit, with -dirty when one of the measured paths differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *measured_paths)
        return git("rev-parse", "--short=12", "HEAD").strip() + ("-dirty" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")


def renew_tables(begin: str, end: str, tables: str) -> None:
    """Puts the tables between the two marks of bench/README.md."""
    text = README.read_text()
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    README.write_text(f"{before}{begin}\n{tables}{end}{after}")
