"""Records of evaluations: their format, the published ones, the curves they keep, and what they were made with."""
