"""``cornernet train``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cornernet.cli.command import Command
from cornernet.cli.start import ConfigFlags, StartFlags, default_recipe, of_run, on_data, say_where
from cornernet.config import CocoSource, Config, ConfigError
from cornernet.config.recipes import recipe
from cornernet.console import count, printable

if TYPE_CHECKING:
    from cornernet.cli.suggest import Suggestion

__all__ = ["TrainArguments", "run"]


@dataclass(frozen=True, kw_only=True)
class TrainStart(StartFlags):
    """What the configuration of a training starts from. By default it is chosen to suit --data."""

    config_file: Path | None = None
    """Start from a config.json, such as the one in a run's folder, instead of a recipe."""
    out: Path | None = None
    """The run's folder. Default: the next unused runs/RECIPE-DATA-N."""
    resume: bool = False
    """Resume the run in --out from its newest checkpoint, with its own configuration. Without --out, resume the newest
    unfinished run in runs/, or the newest one on --data."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments(TrainStart):
    """The arguments of ``cornernet train``."""

    tensorboard: bool = False
    """Also write curves for TensorBoard into the run's folder. Needs the extra cornernet-lab[tensorboard]. A run that
    has them continues them when it is resumed."""
    dry_run: bool = False
    """Print what would be trained and where, and write nothing."""
    config: ConfigFlags


@dataclass(frozen=True, kw_only=True)
class _SourceFlags:
    """The flags of the configuration that say which annotation files of --data are train and val."""

    source: Annotated[CocoSource, tyro.conf.arg(name="data.source")]


def run(command: Command, argv: Sequence[str]) -> int:
    """Train, evaluate, and print the metrics and the run's folder."""
    start = command.read_first(TrainStart, argv)
    # --help shows the recipe's defaults: a suggestion needs the folder to be usable, and resuming a run
    asks = bool({"-h", "--help"} & set(argv))
    first = os.environ.get("RANK", "0") == "0"
    if start.resume and start.out is None and not asks:
        from cornernet.cli.runs import newest_unfinished

        folder, which = newest_unfinished(start.data)
        start = replace(start, out=folder)
        if first:
            print(which)
    suggestion = None if asks else _suggestion(start, command, argv)
    base = _start_config(start) if suggestion is None else _open(suggestion.config)
    arguments = command.parse(TrainArguments, argv, TrainArguments(config=base, out=start.out))

    from cornernet.cli.runs import next_folder

    out = arguments.out or next_folder(_stem(arguments, suggestion))
    if suggestion is not None and first:
        print(suggestion.to_text())
    if arguments.dry_run:
        print(_plan(arguments.config, out))
        return 0

    from cornernet.training.loop import train
    from cornernet.training.tensorboard import TensorBoardLog

    curves = out / "tensorboard"
    with contextlib.ExitStack() as stack:
        continues = arguments.resume and curves.is_dir()
        log = stack.enter_context(TensorBoardLog(curves)) if arguments.tensorboard or continues else None
        evaluation = train(arguments.config, out, resume=arguments.resume, on_record=log)
    if evaluation is not None:
        print(evaluation.to_text())
        print(f"the run is in {printable(out)}")
    return 0


def _suggestion(start: TrainStart, command: Command, argv: Sequence[str]) -> Suggestion | None:
    """Return a configuration that suits --data, or None where a recipe, a file or a run is given to start from."""
    if start.data is None or start.recipe is not None or start.config_file is not None or start.resume:
        return None

    from cornernet.cli.suggest import machine, suggest
    from cornernet.data import open_dataset, require_boxes

    source = command.read_first(_SourceFlags, argv, _SourceFlags(source=CocoSource(root=str(start.data)))).source
    train_set, val_set = open_dataset(source, "train"), open_dataset(source, "val")
    require_boxes(train_set, val_set)
    return suggest(source, train_set, val_set, machine())


def _start_config(start: TrainStart) -> Config:
    """Return the configuration that the flags modify: that of a file, of the run to resume, or of a recipe."""
    resumed = start.out / "config.json" if start.resume and start.out is not None else None
    if start.config_file is not None:
        if start.recipe is not None:
            raise ConfigError("--recipe and --config-file both say what to start from; give one")
        config = _of_run(start.config_file, start.data)
    elif start.recipe is None and resumed is not None and resumed.is_file():
        config = _of_run(resumed, start.data)
        if start.data is not None and isinstance(config.data.source, CocoSource):
            # the data may have been moved; its splits are the run's
            return config.with_("data.source.root", str(start.data))
    else:
        config = _open(recipe(_start_name(start)))
    return on_data(config, start.data)


def _open(config: Config) -> Config:
    """Return the configuration of a new run, which leaves the number of replicas to the machine."""
    return config.with_("training.replicas", 0)


def _of_run(file: Path, data: Path | None) -> Config:
    """Return the configuration in a file. That of a run, where no ``data`` is given, is on the data of that run."""
    config = Config.load(file)
    if data is not None:
        return config
    there = of_run(config, file)
    say_where(config, there)
    return there


def _start_name(start: TrainStart) -> str:
    if start.config_file is not None:
        return start.config_file.stem
    return start.recipe or default_recipe(start.data)


def _stem(arguments: TrainArguments, suggestion: Suggestion | None) -> str:
    """Return the name of a run's folder before its number: RECIPE-DATA."""
    data = "shapes" if arguments.data is None else arguments.data.resolve().name
    return f"{suggestion.recipe if suggestion else _start_name(arguments)}-{data}"


def _plan(config: Config, out: Path) -> str:
    """Return what ``train`` would do, on which data, and where it would write."""
    import torch

    from cornernet.data import open_dataset, require_boxes
    from cornernet.model.detector import build_detector
    from cornernet.training.devices import chosen_replicas, in_replicas, resolve_device

    train_set, val_set = open_dataset(config.data, "train"), open_dataset(config.data, "val")
    require_boxes(train_set, val_set)
    with torch.device("meta"):
        detector = build_detector(config.with_("model.num_classes", len(train_set.classes)))
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    training = chosen_replicas(config.training)
    how = f", in {in_replicas(training)}" if training.replicas > 1 else ""
    height, width = config.data.input_size
    return (
        f"{train_set.summary()}\n{val_set.summary()}\n"
        f"would train {parameters:,} parameters for {count(training.iterations, 'iteration')} with "
        f"{count(training.batch_size, 'image')} of {width}x{height} pixels each, in {training.precision} on "
        f"{resolve_device(training.device)}{how}, and write the run to {printable(out)}"
    )
