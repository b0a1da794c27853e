"""The curves of a run in TensorBoard. Needs the extra: ``pip install cornernet-lab[tensorboard]``."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from cornernet.config import ConfigError
from cornernet.files import make_folder

__all__ = ["TensorBoardLog"]


class TensorBoardLog:
    """Writes the lines of metrics.jsonl into ``folder`` for TensorBoard. A context manager; call it with each line.

    Raises ``ConfigError`` if TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "TensorBoard is not installed; run pip install cornernet-lab[tensorboard], or omit --tensorboard"
            ) from error
        self.folder = folder
        self.make: Any = SummaryWriter
        self.writer: Any = None

    def __call__(self, record: dict[str, Any]) -> None:
        """Write the numbers of one line at its iteration. The first one creates the folder."""
        if self.writer is None:
            make_folder(self.folder, below=self.folder.parent)
            self.writer = self.make(str(self.folder))
        for name, value in record.items():
            if name not in ("iteration", "time") and value is not None:
                self.writer.add_scalar(name, value, record["iteration"], record.get("time"))
        self.writer.flush()

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()
