"""Training: the loop, the step, a run's folder and checkpoints, and reports on a run."""
