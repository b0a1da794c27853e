"""Corner pooling in interchangeable implementations. Knows torch and nothing else of this project."""

from kernels.api import corner_pool, directional_max_pool, implementations
from kernels.registry import Implementation, UnavailableError

__all__ = ["Implementation", "UnavailableError", "corner_pool", "directional_max_pool", "implementations"]
