"""The paper's tables as studies: plans, runs, records, statistics and reports."""

import importlib

if __name__ == "ablations":  # imported from a checkout's root: becomes an alias of cornernet.ablations
    importlib.import_module("cornernet.checkout").alias(__name__)
