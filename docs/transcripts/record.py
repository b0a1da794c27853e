"""Run commands in a folder as a reader would type them, and write their output and times as a page.

    python docs/transcripts/record.py SCRIPT FOLDER PAGE

``SCRIPT`` has a title in its first line and an introduction up to the first empty line. Then follows one command per
line; bash runs them in this order in ``FOLDER``, and finds the programs of ``FOLDER/.venv`` first. Lines that begin
with ``# `` become sentences between the commands. ``PAGE`` is overwritten. Progress that a terminal would overwrite
is left out.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

LONGEST = 60  # lines shown of one command's output; the others are counted


def main(script: Path, folder: Path, page: Path) -> None:
    """Run ``script`` in ``folder`` and write ``page``."""
    head, _, body = script.read_text(encoding="utf-8").partition("\n\n")
    title, _, introduction = head.partition("\n")
    machine = f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, torch {version('torch')}"
    parts = [f"# {title}", introduction, f"Recorded {datetime.now(UTC):%Y-%m-%d} on {machine}."]
    for line in body.splitlines():
        if line.startswith("# "):
            parts.append(line[2:])
        elif line.strip():
            print(f"$ {line}", flush=True)
            parts.append(ran(line, folder))
            page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def ran(command: str, folder: Path) -> str:
    """Return a block with a command, its output, its exit status unless it is 0, and its time in seconds."""
    began = time.monotonic()
    process = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    # without a terminal, progress is written line by line; only the last of these lines is needed
    lines = [line.rsplit("\r", 1)[-1].replace(f"{folder}/", "") for line in process.stdout.splitlines()]
    if len(lines) > LONGEST:
        half = LONGEST // 2
        lines = [*lines[:half], f"[{len(lines) - LONGEST} lines]", *lines[-half:]]
    status = f"exit status {process.returncode}, " if process.returncode else ""
    return "\n".join(["```", f"$ {command}", *lines, f"[{status}{seconds:.1f} s]", "```"])


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:4]))
