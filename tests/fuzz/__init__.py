"""Fuzzing of everything that parses the bytes of strangers: what is called, what it starts from, and two ways to run it."""
