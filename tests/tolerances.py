"""Tolerances and their reasons. Forward has none: it selects values, so they must be equal."""

from __future__ import annotations

import torch

# A gradient is the sum of at most a line of output gradients, accumulated in float32 or wider and rounded once. With
# small integers, every partial sum is exact, and so is the result. With real numbers, the order of the additions
# matters: n additions of values of size 1 have an error of at most n * 2^-24 each way.
GRADIENT_RTOL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
GRADIENT_ATOL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}

# the golden files promise this for the authors' CPU code: forward exact, gradients to 1e-5
AUTHORS_GRADIENT_ATOL = 1e-5
