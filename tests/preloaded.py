# ruff: noqa: F401
"""What the process of tests/forks.py imports before it is forked: all that trainings, studies and commands import."""

import torch._dynamo  # torch imports it for the first optimiser, which takes seconds

import cornernet.ablations.__main__
import cornernet.ablations.running.runner
import cornernet.cli.train
import cornernet.evaluation.evaluate
import cornernet.kernels.cpu_kernels
import cornernet.training.loop
