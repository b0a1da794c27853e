"""The folder of a training run.

::

    config.json            the resolved configuration
    data.json              where the data lay, and its digests; not for generated data (cornernet.data.origin)
    metrics.jsonl          one line every training.log_every iterations, and one for each evaluation
    checkpoints/step-N/    the newest checkpoint (cornernet.training.checkpoints)
    previews/step-N.png    at each evaluation: detections in the same four images of val
    trained_on.txt         a hash of every image file trained on; not for generated data
    model.safetensors      the trained weights with their configuration
    evaluation.json        metrics on val. It is written last: a run that has it is finished
    .training.lock         held while a process trains here, so that two runs never overwrite each other's files
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from cornernet.config import Config, ConfigError
from cornernet.config.checks import changed_fields
from cornernet.console import printable
from cornernet.data.leakage import TRAINED_ON
from cornernet.data.origin import ORIGIN
from cornernet.files import atomic_write, make_folder, open_unchanged, refuse_link, remove_unfinished
from cornernet.training.checkpoints import newest
from cornernet.training.errors import Interrupted, NotFiniteError, ReplicaError, TrainingError

__all__ = ["RunFolder", "differences", "explain_resume", "open_folder", "resume_command"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFolder:
    """The paths in a run's folder. As text, the folder itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.previews = path / "previews"
        self.weights = path / "model.safetensors"
        self.evaluation = path / "evaluation.json"
        self.digests = path / TRAINED_ON
        self.origin = path / ORIGIN
        self.lock = path / ".training.lock"

    @property
    def written(self) -> tuple[Path, ...]:
        """What a training writes, without its lock."""
        return (
            self.config, self.origin, self.metrics, self.checkpoints, self.previews, self.digests, self.weights,
            self.evaluation,
        )  # fmt: skip

    def __str__(self) -> str:
        return str(self.path)


@contextlib.contextmanager
def open_folder(folder: RunFolder, config: Config, resume: bool) -> Iterator[None]:
    """Create a run's folder, or check that it belongs to this run, and lock it until the context ends.

    Raises :class:`TrainingError` if another process holds the lock. Raises ``ConfigError`` for a folder that holds a
    run already, unless ``resume`` is set and the run has the same configuration.
    """
    make_folder(folder.path)
    with open_unchanged(folder.lock) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"another process is training in {folder}; wait for it, or choose another folder"
            ) from None
        except OSError as error:  # some network file systems have no locks
            print(
                f"warning: cannot lock {printable(folder)} ({error.strerror}); "
                "make sure that nothing else trains there",
                file=sys.stderr,
            )
        _begin(folder, config, resume)
        yield


def _begin(folder: RunFolder, config: Config, resume: bool) -> None:
    """Write the configuration of a run that starts or resumes. Raises ``ConfigError`` if it may not."""
    for path in folder.written:
        refuse_link(path)
    # folders may hold other files: their own are called step-N
    begun = [path.name for path in folder.written if path.is_file() or any(path.glob("step-*"))]
    # a run that was stopped before it trained has left its configuration and nothing else
    stopped = begun == [folder.config.name] and folder.config.read_bytes() == config.to_json().encode()
    if begun and not (resume or stopped):
        raise ConfigError(
            f"{folder} already holds a run ({begun[0]}); choose another folder, or continue that run with: "
            f"{resume_command(folder)}"
        )
    if begun:
        if not folder.config.exists():
            raise ConfigError(
                f"{folder} has {begun[0]} but no {folder.config.name}, so it is not known to be a run, and nothing in "
                "it is replaced; choose another folder"
            )
        before = Config.load(folder.config)
        if before.results_dict() != config.results_dict():
            raise ConfigError(
                f"{folder} holds a run with another configuration: {', '.join(differences(before, config))}; "
                "resume with the configuration that it was started with, or choose another folder"
            )
    for each in (folder.path, folder.previews):
        remove_unfinished(each)
    atomic_write(folder.config, config.to_json())


def resume_command(folder: RunFolder) -> str:
    """Return the whole command that resumes a run from the folder in which this process was started."""
    as_module = Path(sys.argv[0]).parts[-3:] == ("cornernet", "cli", "__main__.py")
    program = "python -m cornernet.cli" if as_module else "cornernet"
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        # with several machines, torchrun needs the flags that only the user knows
        here = os.environ.get("LOCAL_WORLD_SIZE") == str(processes)
        how = f"--standalone --nproc-per-node {processes}" if here else "..."
        program = f"torchrun {how} -m cornernet.cli"
    return f"{program} train --resume --out {shlex.quote(str(folder))}"


def differences(a: Config, b: Config) -> list[str]:
    """Return the fields in which two configurations differ, by path and with both values.

    Fields that do not change results are left out.
    """
    return [f"{path} ({x} there, {y} here)" for path, x, y in changed_fields(a.results_dict(), b.results_dict())]


@contextlib.contextmanager
def explain_resume(folder: RunFolder) -> Iterator[None]:
    """Add to the message of whatever stops a run: is there a checkpoint, and how does the run continue?

    That covers numbers that are not finite, Ctrl-C outside the loop, a full disk, and a loader process or a replica
    that died.
    """
    try:
        yield
    except NotFiniteError as error:
        raise TrainingError(f"{error}; the last checkpoint is kept") from error
    except ReplicaError as error:
        raise TrainingError(
            f"{error}; the last checkpoint in {folder}, if there is one, is kept; "
            f"continue with: {resume_command(folder)}"
        ) from error
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        raise Interrupted(_how_to_resume(folder)) from stop
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise TrainingError(
            f"{error}; the last checkpoint in {folder}, if there is one, is kept; "
            f"free some disk space, then continue with: {resume_command(folder)}"
        ) from error
    except RuntimeError as error:
        # torch raises this one from a signal handler, wherever this process happens to be
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a loader process died (out of memory?): {str(error).splitlines()[0]}; the last checkpoint in {folder} "
            f"is kept; if it happens again, use fewer --training.workers; continue with: {resume_command(folder)}"
        ) from error


def _how_to_resume(folder: RunFolder) -> str:
    """Return how to continue a run that was stopped outside its loop."""
    kept = newest(folder.checkpoints)
    if kept is not None:
        done = int(kept.name.removeprefix("step-"))
        return f"stopped; {folder} has the checkpoint of iteration {done}; continue with: {resume_command(folder)}"
    if folder.config.exists():
        return f"stopped before the first checkpoint in {folder}; start again with: {resume_command(folder)}"
    return "stopped before the run began; start it with the same command"
