"""The command about saved gap reports: ``dnc report``."""

from __future__ import annotations

import argparse
import json

from dnc_async.cli.shared import Commands, command, print_line, say, say_if_replaced
from dnc_async.system.writing import is_special

# Modules that import numpy or aiohttp are imported by the command that needs them: 'dnc --help' answers at once.


def add_report(commands: Commands) -> None:
    """Declare ``dnc report``."""
    report = command(commands, "report", _run_report, "show a gap report that 'dnc stream --report' saved")
    report.add_argument("file", help="the saved report")
    report.add_argument("--json", action="store_true", help="as JSON, instead of text")
    report.add_argument("--html", metavar="OUT", help="write it as an HTML page")
    report.add_argument(
        "--plot", metavar="OUT.png", help="draw it, by the file's name as PNG, SVG or PDF (needs matplotlib)"
    )


def _run_report(options: argparse.Namespace) -> None:
    from dnc_async.engine.report.page import page  # noqa: PLC0415
    from dnc_async.engine.report.report import Report  # noqa: PLC0415
    from dnc_async.engine.report.saving import replace_file  # noqa: PLC0415

    report = Report.load(options.file)
    bodies = {options.html: page(report).encode("utf-8", "backslashreplace")} if options.html else {}
    if options.plot:
        from dnc_async.engine.report.picture import encode  # noqa: PLC0415

        bodies[options.plot] = encode(report, options.plot)
    for name, body in bodies.items():
        say_if_replaced(name)
        replace_file(name, body)
    if options.json:
        print_line(json.dumps(report.to_dict()))
    elif not bodies:
        print_line(str(report))
    for name in bodies:
        (say if options.json or is_special(name) else print_line)(name)
