"""Benchmarks: ``python -m bench NAME``. Figures are ratios within one run, against a peer or a physical limit."""
