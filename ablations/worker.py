"""The process of one training and its evaluations: ``python -m ablations.worker STORE``.

The configurations of the evaluations come as a JSON list on standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ablations.runner import run_group
from ablations.store import Store
from cornernet.config import Config

if __name__ == "__main__":
    configs = [Config.from_dict(tree, "standard input") for tree in json.load(sys.stdin)]
    sys.exit(run_group(Store(Path(sys.argv[1])), configs))
