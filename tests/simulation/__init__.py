"""Tests of a whole client on a virtual clock."""
