"""The model that ships with the package, trained on generated ``shapes`` so that there is something to try at once.

``cornernet detect --demo`` runs it, and every command accepts ``--weights starter``. To train it again::

    python -m cornernet.training.starter --out runs/starter

This takes a few minutes on one thread and can be resumed. The model knows three drawn shapes and no photographs. It is
a demonstration, not a starting point for training. Its weights are stored in half precision; like all others, they are
used in single precision.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from cornernet.checkout import revision
from cornernet.config import Config
from cornernet.config.recipes import recipe
from cornernet.console import ended_by_its_reader, printable, survive_any_encoding
from cornernet.data.shapes import SHAPES_VERSION
from cornernet.files import Output
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
"""The edits: three times the images and iterations, and one thread, because bits depend on the number of threads."""


def starter_config() -> Config:
    """Return the configuration that the shipped model was trained with."""
    config = recipe(RECIPE)
    for path, value in EDITS.items():
        config = config.with_(path, value)
    return config


def made_from(weights: Path = STARTER) -> dict[str, object]:
    """Return how a starter model was made: recipe, edits, seed, revision, versions, and metrics on val."""
    with safetensors.safe_open(weights, framework="pt") as file:
        found: dict[str, object] = json.loads(file.metadata()["made"])
    return found


def halve(source: Path, target: Path, made: dict[str, object], overwrite: bool = False) -> None:
    """Write the weights in ``source`` to ``target`` in half precision, with ``made`` in the metadata.

    Raises ``ValueError`` for a weight that half precision cannot represent, and ``OutputError`` for a target that this
    function did not write, unless ``overwrite`` is set.
    """
    with safetensors.safe_open(source, framework="pt") as file:
        # the digest is that of the weights in single precision
        metadata = {name: text for name, text in file.metadata().items() if name != "sha256"}
        metadata["made"] = json.dumps(made)
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is not a mapping
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    broken = [key for key, value in half.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"{source}: half precision cannot represent {broken[0]}")
    Output(target.parent, "starter", overwrite=overwrite).write(target.name, safetensors.torch.save(half, metadata))


@ended_by_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Train the starter model and write its weights."""
    survive_any_encoding()
    parser = argparse.ArgumentParser(prog="python -m cornernet.training.starter", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/starter"),
        help="the folder of the run; an unfinished run there is resumed",
    )
    parser.add_argument("--weights", type=Path, help="the file to write; default: starter.safetensors in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it exists")
    arguments = parser.parse_args(argv)
    target = arguments.weights or arguments.out / STARTER.name
    Output(target.parent, "starter", overwrite=arguments.overwrite).require([target.name])
    evaluation = train(starter_config(), arguments.out, resume=True)
    if evaluation is None:
        return 0
    made: dict[str, object] = {
        "command": "python -m cornernet.training.starter",
        "recipe": RECIPE,
        "edits": EDITS,
        "seed": EDITS["training.seed"],
        "revision": revision(),
        "shapes_version": SHAPES_VERSION,
        "torch": torch.__version__,
        "metrics": {name: round(evaluation.metrics[name], 4) for name in ("AP", "AP50", "AP75")},
    }
    halve(arguments.out / "model.safetensors", target, made, arguments.overwrite)
    print(f"{printable(target)}: {target.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
