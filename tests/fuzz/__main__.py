"""Fuzzes for a long time, guided by coverage, with atheris: ``nox -s fuzz``.

``python -m fuzz [--seconds N] [TARGET …]``, with the folder of the tests on the path. Each target runs in a process of its own,
for N seconds, and starts from the corpus. What makes one fail is written to ``crash-…`` in the working directory, or to
``timeout-…`` and ``oom-…``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

_MEMORY_MB, _TIMEOUT_S, _MOST_BYTES = 1024, 20, 65536


def main() -> int:
    """Run the targets one after the other; returns how many failed."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what to fuzz (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--one", metavar="TARGET", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.one:
        return fuzz(options.one, [*options.targets, *rest])
    from .corpus import corpus  # noqa: PLC0415 - a process that fuzzes must not import the library before it is instrumented

    failed = []
    for name in options.targets or corpus():
        with tempfile.TemporaryDirectory() as folder:
            for number, data in enumerate(corpus()[name]):
                Path(folder, f"{number:04}").write_bytes(data)
            limits = [f"-max_total_time={options.seconds}", f"-rss_limit_mb={_MEMORY_MB}", f"-timeout={_TIMEOUT_S}"]
            words = [
                "-m",
                "fuzz",
                "--one",
                name,
                folder,
                *limits,
                f"-max_len={_MOST_BYTES}",
                f"-artifact_prefix={name}-",
            ]
            print(f"{name}:", flush=True)
            if subprocess.run([sys.executable, *words], check=False).returncode:
                failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "nothing was found")
    return len(failed)


def fuzz(name: str, words: list[str]) -> int:
    """Fuzz one target in this process, which ends with it."""
    import atheris  # noqa: PLC0415 - "nox -s fuzz" installs it, the tests run without

    with atheris.instrument_imports(include=["dnc_async"]):
        from .targets import call  # noqa: PLC0415 - see above
    atheris.Setup([sys.argv[0], *words], lambda data: call(name, data))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
