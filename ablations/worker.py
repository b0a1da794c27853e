"""The process of one job: ``python -m ablations.worker STORE``, its configuration as JSON on standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from ablations.runner import run_job
from ablations.store import Store
from cornernet.config import Config

if __name__ == "__main__":
    run_job(Store(Path(sys.argv[1])), Config.from_json(sys.stdin.read(), "standard input"))
