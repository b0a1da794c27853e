"""Replicas: processes on the CPU that each compute a share of every batch of one training.

The first replica is the training process itself. It alone has the optimiser, evaluates, and writes files. The others
compute gradients: each loads its own share of a batch, as a process of torchrun does, and has a detector whose weights
lie in memory that all replicas share. In a step the replicas exchange

* the counts that losses are divided by, when each has its images; the weights of the last step are ready then;
* batch norm's sums of each image, in forward and in backward, so that statistics and their gradients are those of the
  whole batch (:func:`cornernet.kernels.batch_norm.sharing`);
* losses, when the gradients are in shared memory. The first replica adds them up, in the order of the replicas.

All sums over replicas have a fixed order, so bits do not depend on how many cores there are. They differ from those of
one process by the rounding of sums over images, in the gradients of the weights.

A replica that fails sends its error to the first one, which raises it. When a process ends in any other way, the pipes
to it close, and the others end too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NamedTuple, NoReturn

import cv2
import psutil
import torch
from torch import Tensor, nn

from cornernet.config import Config
from cornernet.console import PrintableError, error_text, survive_any_encoding
from cornernet.data import DetectionDataset
from cornernet.data.loader import Batch
from cornernet.kernels import batch_norm
from cornernet.model.detector import Detector, build_detector
from cornernet.training.batches import training_batches
from cornernet.training.errors import ReplicaError
from cornernet.training.exchange import Exchange, ReplicaGone, SharedFloats, exchange_bytes, pipes
from cornernet.training.gradients import accumulate_gradients, memory_format
from cornernet.training.heap import keep_freed_memory
from cornernet.training.signals import ignore_signals, signals_blocked

__all__ = ["Replicas", "Share", "use_threads"]

_ALIGNED = 64
"""Bytes of a cache line: rows of weights begin where one does."""
_MOST_NAMED = 128
"""The most counts or losses of a head."""
_PATIENCE = 5.0
"""Seconds that a replica has to end by itself once the pipes to it are closed; a long step takes longer."""


class Share(NamedTuple):
    """What a replica found in its share of a batch."""

    losses: dict[str, Tensor]
    """Scalars, float32, divided by the counts of the whole batch, so that they add up."""
    image_ids: list[int]


def use_threads(threads: int) -> None:
    """Use so many threads in torch and OpenCV; 0 leaves both as they are."""
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


class Replicas:
    """The other replicas of a training, as the first one sees them."""

    def __init__(self, config: Config, train_set: DetectionDataset, detector: Detector, start: int) -> None:
        """Start the processes, ``config.training.replicas - 1`` of them, and move the weights to shared memory.

        ``detector`` is on the CPU, in the memory format of training, after ``start`` iterations.
        """
        count = config.training.replicas
        self.share = (0, count)
        """Which share of every batch this process computes, and of how many."""
        context = multiprocessing.get_context("spawn")
        self._layout = _Layout.of(config, detector)
        self._memory = SharedFloats(self._layout.nbytes)
        self._parameters = list(detector.parameters())
        self._layout.place_weights(self._memory, self._parameters, copy=True)
        self._gradients = [self._layout.gradients(self._memory, rank, self._parameters) for rank in range(1, count)]
        ends = pipes(context, count)
        self._exchange = Exchange(0, self._memory, self._layout.capacity, *ends[0])
        self._failures: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        try:
            # the processes inherit the block until they ignore the signals themselves
            with signals_blocked():
                for rank in range(1, count):
                    ours, theirs = context.Pipe(duplex=False)
                    self._failures.append(ours)
                    task = _Task(config, train_set, start, self._memory, rank, *ends[rank], theirs)
                    # not a daemon: it may have loader processes
                    process = context.Process(target=_work, args=(task,), name=f"replica {rank}")
                    process.start()
                    self._processes.append(process)
                    theirs.close()
        except BaseException:
            self.close()
            raise
        finally:
            # an end that this process kept open would hide the end of the process that it was made for
            for sources, targets in ends[1:]:
                for end in (*sources.values(), *targets.values()):
                    end.close()

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_counts(self, counts: Tensor) -> Tensor:
        """Return the sums of all replicas' counts. From here on, the weights must not change until :meth:`add_up`."""
        return _sums(self._gather, counts)

    def sharing(self) -> AbstractContextManager[None]:
        """Return a context in which batch norm has the statistics of the whole batch."""
        return batch_norm.sharing(self._gather)

    def add_up(self, own: Share) -> list[Share]:
        """Add all replicas' gradients to those of this one, and return what each found, in their order.

        ``own`` is what this one found.
        """
        rows = self._gather(_report(own))
        for gradients in self._gradients:
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(gradient)
        return [own, *(_reported(row, list(own.losses)) for row in rows[1:])]

    def resident_bytes(self) -> int:
        """Return the memory that the other replicas hold now, without what they share with this process."""
        total = 0
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                memory = psutil.Process(process.pid).memory_info()
                total += memory.rss - getattr(memory, "shared", 0)
        return total

    def close(self) -> None:
        """End the other processes. The weights stay where they are."""
        self._exchange.close()
        for failure in self._failures:
            failure.close()
        for process in self._processes:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()  # it has nothing to save, and its loader processes end with it
                process.join()

    def _gather(self, own: Tensor) -> Tensor:
        try:
            return self._exchange(own)
        except ReplicaGone:
            self._raise_failure()

    def _raise_failure(self) -> NoReturn:
        """Raise the error of the replica that failed, or say how its process ended."""
        self._exchange.close()  # lets the others end, each of which closes its connection
        waiting, end = [*self._failures], time.monotonic() + _PATIENCE
        while waiting and (ready := wait(waiting, max(0.0, end - time.monotonic()))):
            for failure in [each for each in waiting if each in ready]:
                waiting.remove(failure)
                with contextlib.suppress(EOFError, OSError):
                    raise _received(failure.recv_bytes())
        for rank, process in enumerate(self._processes, 1):
            process.join(_PATIENCE)
            if process.exitcode:
                raise ReplicaError(f"replica {rank} ended unexpectedly ({_how(process.exitcode)})")
        raise ReplicaError("a replica ended unexpectedly")


@dataclass(frozen=True)
class _Layout:
    """Where things lie in the memory of the replicas: rows to exchange, weights, and a set of gradients for each."""

    replicas: int
    capacity: int
    """Numbers that a replica gives in an exchange, at most."""
    sizes: tuple[int, ...]
    """Elements of each parameter."""

    @staticmethod
    def of(config: Config, detector: Detector) -> _Layout:
        """Return the layout for a detector that trains as ``config`` says."""
        training = config.training
        images = training.batch_size // (training.accumulation * training.replicas)
        channels = [part.num_features for part in detector.modules() if isinstance(part, nn.BatchNorm2d)]
        capacity = max(3 * images * max(channels, default=0), training.accumulation * images + _MOST_NAMED)
        return _Layout(training.replicas, capacity, tuple(each.numel() for each in detector.parameters()))

    @property
    def nbytes(self) -> int:
        return self._weights_at + self.replicas * self._span  # the first replica keeps its gradients to itself

    @property
    def _weights_at(self) -> int:
        return exchange_bytes(self.replicas, self.capacity)

    @property
    def _span(self) -> int:
        """Bytes of all weights, or of all gradients of one replica."""
        return sum(map(_padded, self.sizes))

    def place_weights(self, memory: SharedFloats, parameters: Sequence[nn.Parameter], *, copy: bool) -> None:
        """Move parameters into the shared memory: with their values, or taking those that it holds."""
        for parameter, there in zip(parameters, self._views(memory, self._weights_at, parameters), strict=True):
            if copy:
                there.copy_(parameter.detach())
            parameter.data = there

    def gradients(self, memory: SharedFloats, rank: int, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Return the gradients of replica ``rank``, 1 or more, in the shared memory."""
        return self._views(memory, self._weights_at + rank * self._span, parameters)

    def _views(self, memory: SharedFloats, start: int, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        views = []
        for parameter in parameters:
            row = memory.tensor(parameter.dtype, start, parameter.numel())
            views.append(row.as_strided(parameter.shape, parameter.stride()))  # in the same memory format
            start += _padded(parameter.numel())
        return views


def _padded(numbers: int) -> int:
    """Return the bytes of a row of float32 numbers up to where the next one may begin."""
    return -(-numbers * 4 // _ALIGNED) * _ALIGNED


@dataclass(frozen=True)
class _Task:
    """What the process of a replica gets."""

    config: Config
    train_set: DetectionDataset
    start: int
    """Finished iterations."""
    memory: SharedFloats
    rank: int
    sources: dict[int, Connection]
    targets: dict[int, Connection]
    failure: Connection
    """To the first replica, for an error."""

    def run(self) -> None:
        """Compute shares of batches until the last, or until another replica ends (:class:`ReplicaGone`)."""
        training = self.config.training
        use_threads(training.threads_each)
        detector = build_detector(self.config)
        detector.to(memory_format=memory_format(training))  # type: ignore[call-overload]
        keep_freed_memory()
        detector.train()
        parameters = list(detector.parameters())
        layout = _Layout.of(self.config, detector)
        layout.place_weights(self.memory, parameters, copy=False)
        gradients = layout.gradients(self.memory, self.rank, parameters)
        exchange = Exchange(self.rank, self.memory, layout.capacity, self.sources, self.targets)
        share = self.rank, training.replicas
        with (
            contextlib.closing(exchange),
            training_batches(self.config, self.train_set, detector, self.start, *share) as batches,
            batch_norm.sharing(exchange),
        ):
            for parts in batches:
                self._step(parts, detector, exchange, gradients)

    def _step(self, parts: list[Batch], detector: Detector, exchange: Exchange, gradients: Sequence[Tensor]) -> None:
        """Compute this replica's gradients of a batch into the shared memory."""
        targets = [part.targets for part in parts]
        counts = _sums(exchange, torch.stack([target.counts() for target in targets]).sum(0))
        detector.zero_grad(set_to_none=True)
        losses = accumulate_gradients(
            detector, detector, self.config.training, torch.device("cpu"), parts, targets, counts
        )
        for parameter, there in zip(detector.parameters(), gradients, strict=True):
            if parameter.grad is not None:
                there.copy_(parameter.grad)
        exchange(_report(Share(losses, [each for part in parts for each in part.image_ids])))


def _work(task: _Task) -> None:
    """Be a replica: the process's main function."""
    ignore_signals()
    survive_any_encoding()
    warnings.simplefilter("ignore")  # the first replica shows the same ones
    try:
        task.run()
    except ReplicaGone:
        pass  # the first replica says why
    except BaseException as error:  # noqa: BLE001 - it is raised by the first replica
        with contextlib.suppress(OSError):
            task.failure.send_bytes(_packed(error))


def _packed(error: BaseException) -> bytes:
    """Return an error for another process, with its traceback; as text where it cannot be pickled."""
    trace = "".join(traceback.format_exception(error))
    try:
        packed = pickle.dumps((error, trace))
        pickle.loads(packed)  # some errors can be written only
    except Exception:  # noqa: BLE001 - whatever its own methods raise
        return pickle.dumps((ReplicaError(f"a replica failed: {type(error).__name__}: {error_text(error)}"), trace))
    return packed


def _received(packed: bytes) -> BaseException:
    """Return the error of another process, with its traceback as the cause unless it says all there is to say."""
    error: BaseException
    error, trace = pickle.loads(packed)  # safe: from a process that this one started
    if not isinstance(error, PrintableError):
        error.__cause__ = _RemoteTraceback(trace)
    return error


class _RemoteTraceback(Exception):
    """The traceback of an error in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _how(exitcode: int) -> str:
    if exitcode < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-exitcode).name
            return f"{name}: out of memory?" if name == "SIGKILL" else name
    return f"exit status {exitcode}"


def _sums(exchange: Callable[[Tensor], Tensor], counts: Tensor) -> Tensor:
    """Return the sums of all replicas' counts."""
    return exchange(counts.double()[None]).sum(0).to(counts.dtype)


def _report(share: Share) -> Tensor:
    """Return one row to exchange: losses, and image ids, whose bits are kept as they are."""
    values = torch.stack(list(share.losses.values())).double()
    return torch.cat([values, torch.tensor(share.image_ids, dtype=torch.int64).view(torch.float64)])[None]


def _reported(row: Tensor, names: Sequence[str]) -> Share:
    values, ids = row[: len(names)].float(), row[len(names) :].clone().view(torch.int64)
    return Share(dict(zip(names, values, strict=True)), ids.tolist())
