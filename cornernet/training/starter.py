"""The model that ships with the package, trained on generated ``shapes``: something to look at at once.

``cornernet detect --demo`` runs it, and ``--weights starter`` names it everywhere. It is made again by::

    python -m cornernet.training.starter --out runs/starter

on one thread, a few minutes, resumable. It knows three drawn shapes and nothing of photographs: a demonstration, and
no start for training. Its weights are stored in half precision, and computed with in single precision as any others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from cornernet.config import Config
from cornernet.config.recipes import recipe
from cornernet.data.shapes import SHAPES_VERSION
from cornernet.files import atomic_write
from cornernet.training.loop import train
from cornernet.weights.checkpoints import STARTER

__all__ = ["RECIPE", "halve", "made_from", "starter_config"]

RECIPE = "tiny"
"""The recipe that :func:`starter_config` edits."""
EDITS: dict[str, object] = {
    "data.source.train_images": 1200,
    "training.iterations": 2400,
    "training.checkpoint_every": 100,
    "training.seed": 0,
    "training.threads": 1,
    "training.device": "cpu",
}
"""What it changes: three times the pictures and the iterations, on one thread, where bits do not depend on a count."""


def starter_config() -> Config:
    """Return the configuration that the shipped model was trained with."""
    config = recipe(RECIPE)
    for path, value in EDITS.items():
        config = config.with_(path, value)
    return config


def made_from(weights: Path = STARTER) -> dict[str, object]:
    """Return how a starter model was made: recipe, edits, seed, revision, and its metrics on val."""
    with safetensors.safe_open(weights, framework="pt") as file:
        found: dict[str, object] = json.loads(file.metadata()["made"])
    return found


def halve(source: Path, target: Path, made: dict[str, object]) -> None:
    """Write the weights of ``source`` to ``target`` in half precision, with ``made`` in their metadata."""
    with safetensors.safe_open(source, framework="pt") as file:
        # in half precision they are other weights than the digest is of
        metadata = {name: text for name, text in file.metadata().items() if name != "sha256"}
        metadata["made"] = json.dumps(made)
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    broken = [key for key, value in half.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"{source}: {broken[0]} does not fit into half precision")
    atomic_write(target, safetensors.torch.save(half, metadata))


def _revision() -> str:
    """The commit that this is run from, with ``+changes`` where files differ from it; unknown outside git."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Train the starter model and write its weights."""
    parser = argparse.ArgumentParser(prog="python -m cornernet.training.starter", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/starter"), help="the run's folder; goes on with it")
    parser.add_argument("--weights", type=Path, help="file to write; default: starter.safetensors in --out")
    arguments = parser.parse_args(argv)
    target = arguments.weights or arguments.out / STARTER.name
    evaluation = train(starter_config(), arguments.out, resume=True)
    if evaluation is None:
        return 0
    made: dict[str, object] = {
        "command": "python -m cornernet.training.starter",
        "recipe": RECIPE,
        "edits": EDITS,
        "seed": EDITS["training.seed"],
        "revision": _revision(),
        "shapes_version": SHAPES_VERSION,
        "torch": torch.__version__,
        "metrics": {name: round(evaluation.metrics[name], 4) for name in ("AP", "AP50", "AP75")},
    }
    halve(arguments.out / "model.safetensors", target, made)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
