"""Benchmarks: ``python -m bench NAME``. Figures are ratios within one run, against a peer or a physical limit."""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # read when numpy is imported
    os.environ.setdefault(_name, "1")  # a step that takes every core leaves none to the gateways, which are here, too
