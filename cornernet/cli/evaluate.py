"""``cornernet evaluate``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from cornernet.cli.command import Command
from cornernet.cli.start import (
    ConfigFlags,
    StartFlags,
    check_data,
    default_recipe,
    load,
    of_run,
    on_data,
    prepared,
    say_where,
)
from cornernet.config import ConfigError
from cornernet.config.choices import DEFAULT_BACKEND, Backend, Split
from cornernet.config.recipes import recipe
from cornernet.console import Progress, count, printable
from cornernet.files import Output

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset
    from cornernet.evaluation.evaluate import Evaluation
    from cornernet.model.detector import Detector

__all__ = ["EvaluateArguments", "run"]


@dataclass(frozen=True, kw_only=True)
class EvaluateStart(StartFlags):
    """What the configuration of an evaluation starts from."""

    weights: str = ""
    """A run's folder; a .safetensors file; a file of the authors, of CornerNet-Lite or of mmdetection; `starter`; or
    `random` for the random initial weights of --recipe. Of a run that is not finished, the newest checkpoint."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(EvaluateStart):
    """The arguments of ``cornernet evaluate``."""

    split: Split = "val"
    """Split to evaluate on. test is the annotation file of --data with `test` in its name."""
    other_data: bool = False
    """Evaluate also where the data at the run's own path is not what the run was trained with."""
    backend: Backend = DEFAULT_BACKEND
    """Who evaluates. pycocotools is COCO's own program and the check: it gives the same numbers, and takes longer."""
    fast: bool = False
    """Fold batch norm and compute in place: the same boxes up to rounding, in less time (cornernet.model.fast)."""
    save_results: Path | None = None
    """Write the detections to this file in COCO's result format."""
    overwrite: bool = False
    """Replace that file if it exists; one that this command wrote is replaced anyway."""
    dry_run: bool = False
    """Print what would be evaluated, and neither evaluate nor write."""
    config: ConfigFlags


def run(command: Command, argv: Sequence[str]) -> int:
    """Evaluate and print the metrics."""
    start = command.read_first(EvaluateStart, argv)
    detector = load(start.weights, start.recipe) if start.weights not in ("", "random") else None
    own = detector.config if detector is not None else recipe(start.recipe or default_recipe(start.data))
    base = own if detector is None else of_run(own, start.weights)
    default = EvaluateArguments(weights=tyro.MISSING, config=on_data(base, start.data))
    arguments = command.parse(EvaluateArguments, argv, default)
    results = arguments.save_results
    if results is not None and not results.parent.is_dir():
        raise ConfigError(f"there is no folder {results.parent} for --save-results")
    output = None if results is None else Output(results.parent, "evaluate", overwrite=arguments.overwrite)
    if output is not None and results is not None:
        output.require([results.name])
    source = arguments.config.data.source
    named = start.data is not None or source != base.data.source
    if not named:
        say_where(own, base)

    from cornernet.data import DataError, open_dataset
    from cornernet.data.leakage import leakage_warning
    from cornernet.data.survey import survey

    dataset = open_dataset(arguments.config.data, arguments.split)
    print(dataset.summary())
    if not dataset.annotated and results is None:
        raise DataError(
            f"{dataset.name} {dataset.split} has no list 'annotations', so that nothing can be measured on it; write "
            "the detections to a file: --save-results FILE"
        )
    for warning in survey(dataset).warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if detector is not None:
        check_data(detector, dataset, arguments.config.data, arguments.split, named=named, other=arguments.other_data)
        if warning := leakage_warning(Path(arguments.weights), base, dataset):
            print(f"warning: {warning}", file=sys.stderr)
    if arguments.dry_run:
        written = "" if results is None else f", and write detections to {printable(results)}"
        print(f"would evaluate {printable(arguments.weights)} on {count(len(dataset), 'image')}{written}")
        return 0
    if detector is None:
        config = arguments.config.with_("model.num_classes", len(dataset.classes))
        arguments = replace(arguments, config=config)

        import torch

        from cornernet.model.detector import build_detector

        torch.manual_seed(config.training.seed)
        detector = build_detector(config).eval()
    evaluation = _evaluate(detector, dataset, arguments)
    if dataset.annotated:
        print(evaluation.to_text())
    if output is not None and results is not None:
        output.write(results.name, json.dumps(evaluation.results) + "\n")
    return 0


def _evaluate(detector: Detector, dataset: DetectionDataset, arguments: EvaluateArguments) -> Evaluation:
    from cornernet.evaluation.evaluate import READERS, evaluate
    from cornernet.model.fast import optimised

    config = arguments.config
    detector = prepared(detector, config)
    if arguments.fast:
        detector = optimised(detector)
    with contextlib.closing(Progress("evaluate", len(dataset), unit="img")) as progress:
        return evaluate(detector, dataset, config, arguments.backend, lambda done, _: progress.update(done), READERS)
