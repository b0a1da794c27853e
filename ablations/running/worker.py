"""The process of one training and its evaluations: ``python -m ablations.running.worker STORE``.

The configurations of the evaluations are a JSON list in a file on standard input. Under torchrun every process reads
that file, so each reads it from the beginning.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cornernet.config import Config
from cornernet.console import printable, survive_any_encoding

from .runner import run_group
from .store import Store

if __name__ == "__main__":
    survive_any_encoding()
    text = os.pread(sys.stdin.fileno(), os.fstat(sys.stdin.fileno()).st_size, 0)
    configs = [Config.from_dict(tree, "standard input") for tree in json.loads(text)]
    try:
        sys.exit(run_group(Store(Path(sys.argv[1])), configs))
    except KeyboardInterrupt as stop:
        print(f"ablations.running.worker: {printable(stop) or 'stopped'}", file=sys.stderr)
        sys.exit(130)
