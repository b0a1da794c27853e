"""Records of evaluations, and the published results that are derived from them."""
