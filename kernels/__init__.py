"""Corner pooling in interchangeable implementations. Knows torch and nothing else of this project."""

import importlib

if __name__ == "kernels":  # from a checkout's root; its name is cornernet.kernels, of which this becomes an alias
    importlib.import_module("cornernet.checkout").alias(__name__)
else:
    from .api import corner_pool, directional_max_pool, implementations
    from .registry import Implementation, UnavailableError

__all__ = ["Implementation", "UnavailableError", "corner_pool", "directional_max_pool", "implementations"]
