"""The paper's tables as studies: plans, runs, records, statistics and reports."""

import importlib

if __name__ == "ablations":  # from a checkout's root; its name is cornernet.ablations, of which this becomes an alias
    importlib.import_module("cornernet.checkout").alias(__name__)
