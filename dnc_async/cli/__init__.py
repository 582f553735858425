"""The shell: ``dnc demo | upload | stream | report | inspect | get | add | import | export | verify | serve``.

Results go to stdout (``--json`` for machines), progress and errors to stderr. Exit status: 0 done, 1 failed, 2 wrong usage,
130 interrupted (Ctrl-C), 143 and 129 ended by SIGTERM and SIGHUP, each of which leaves nothing behind. Errors of the library
are one message, never a traceback.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from dnc_async.cli.process import ended_by_signals, give_up_full_stderr, open_standard_streams

# Everything else is imported after the signal handlers are set, because it takes longer than some commands.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    open_standard_streams()
    with ended_by_signals() as interrupted_status:
        try:
            from dnc_async.cli.commands import run  # noqa: PLC0415 - see above

            return run(arguments)
        except KeyboardInterrupt:
            return _interrupted(interrupted_status())
        finally:
            give_up_full_stderr()


def _interrupted(status: int) -> int:
    from dnc_async.cli.shared import say  # noqa: PLC0415 - see above

    number = signal.Signals(status - 128)
    say("interrupted" if number is signal.SIGINT else f"ended by {number.name}")
    return status
