"""The command ``cornernet``: the table of commands, and the exit status of each way a command can end.

Every field of the configuration is a flag with its path, ``--training.iterations 900``. The recipe, the configuration
file or the weights give the fields' initial values.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cornernet.checkout import version
from cornernet.cli.command import Command
from cornernet.console import ended_by_its_reader, is_unread, printable, survive_any_encoding

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    Command(
        "train",
        "Train a detector and evaluate it on val. Without --recipe, the configuration is chosen to suit the images.",
        "cornernet train --data my_photos --training.iterations 2000",
        "cornernet.cli.train",
    ),
    Command(
        "evaluate",
        "Evaluate weights on a data set with the COCO metrics.",
        "cornernet evaluate --weights runs/small-photos-1 --data my_photos",
        "cornernet.cli.evaluate",
    ),
    Command(
        "detect",
        "Detect objects in photographs and write drawn images, JSON, COCO and CSV files.",
        'cornernet detect photos "more/**/*.jpg" --weights runs/small-photos-1 --out detected',
        "cornernet.cli.detect",
    ),
    Command(
        "convert",
        "Convert weights between our format and those of the authors, CornerNet-Lite and mmdetection.",
        "cornernet convert CornerNet_500000.pkl --out cornernet.safetensors",
        "cornernet.cli.weights",
        "convert",
    ),
    Command(
        "report",
        "Write an HTML page about one training run: curves, AP, classes, best and worst images.",
        "cornernet report runs/small-photos-1",
        "cornernet.cli.report",
    ),
    Command(
        "export",
        "Export a detector for other programs and check the exported file.",
        "cornernet export runs/small-my_photos-1 --out model.onnx",
        "cornernet.cli.weights",
        "export",
    ),
    Command(
        "data check",
        "Report what a COCO-format folder contains, what would be dropped from it, and why.",
        "cornernet data check my_photos",
        "cornernet.cli.data",
        "check",
    ),
    Command(
        "data import-voc",
        "Convert a Pascal VOC folder (xml files) to COCO format and report what was dropped.",
        "cornernet data import-voc VOC2007 --difficult ignore",
        "cornernet.cli.data",
        "import_voc",
    ),
    Command(
        "data import-yolo",
        "Convert a YOLO folder (text files and class names) to COCO format and report what was dropped.",
        "cornernet data import-yolo my_yolo --names my_yolo/classes.txt --out my_photos",
        "cornernet.cli.data",
        "import_yolo",
    ),
    Command(
        "data import-labelme",
        "Convert a folder of labelme's json files to COCO format and report what was dropped.",
        "cornernet data import-labelme my_photos",
        "cornernet.cli.data",
        "import_labelme",
    ),
    Command(
        "data import-cvat",
        "Convert a folder with the xml of 'CVAT for images 1.1' to COCO format and report what was dropped.",
        "cornernet data import-cvat my_export --out my_photos",
        "cornernet.cli.data",
        "import_cvat",
    ),
    Command(
        "data split",
        "Split an annotation file into train, val and optionally test, with every class in each and no image in two.",
        "cornernet data split my_photos --val 0.2",
        "cornernet.cli.data",
        "split",
    ),
    Command(
        "data show",
        "Draw images with their boxes, as training sees them, and their target heatmaps.",
        "cornernet data show my_photos --count 4 --out shown.png",
        "cornernet.cli.data",
        "show",
    ),
    Command(
        "ablate",
        "Run the paper's ablations and write their tables (the same as python -m cornernet.ablations).",
        "cornernet ablate --profile quick",
        "cornernet.cli.ablate",
    ),
)
"""Every command, in the order of the help."""

_BY_NAME = {command.name: command for command in COMMANDS}


@ended_by_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for an error, 130 when interrupted, 141 when unread.

    A bug is raised. ``SystemExit`` is raised for ``COMMAND --help`` and for flags that cannot be parsed.
    """
    survive_any_encoding()
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if argv == ["--version"]:
        print(f"cornernet {version()}")
        return 0
    words = 2 if argv[0] == "data" and argv[1:] else 1
    name = " ".join(argv[:words])
    if name not in _BY_NAME:
        from cornernet.config.checks import did_you_mean  # here, since the help does without the configuration

        print(
            _usage(),
            f"cornernet: there is no command {name!r}{did_you_mean(name, _BY_NAME)}",
            sep="\n",
            file=sys.stderr,
        )
        return 2
    return _run(_BY_NAME[name], argv[words:])


def _usage() -> str:
    lines = ["usage: cornernet COMMAND ... (each command has --help); cornernet --version", ""]
    return "\n".join(lines + [f"  {command.name:<20} {command.summary}" for command in COMMANDS])


def _run(command: Command, argv: Sequence[str]) -> int:
    """Run a command; an error that the user can do something about becomes a message and an exit status."""
    try:
        return command.run(argv)
    except KeyboardInterrupt as stop:
        print(f"cornernet: {printable(stop) or 'stopped'}", file=sys.stderr)
        return 130
    except Exception as error:
        if is_unread(error):
            raise
        from cornernet.cli.errors import describe

        message = describe(error, command.name)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return 2
