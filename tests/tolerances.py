"""How far results may be from the truth, and why. Forward has no tolerance: values are selected, so they are equal."""

from __future__ import annotations

import torch

# Gradients are sums of at most a line of output gradients, accumulated in float32 or wider and rounded once. With
# small integers as gradients every partial sum is exact and so is the result; with real numbers the order of the
# additions shows: n additions of values of size 1 err by at most n * 2^-24 each way.
GRADIENT_RTOL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
GRADIENT_ATOL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}

# what goldens/README promises for the authors' CPU code: forward exact, gradients to 1e-5
AUTHORS_GRADIENT_ATOL = 1e-5
