"""The report as HTML: tables for a notebook, and a self-contained page. PURE. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from dnc_async.engine.report.text import (
    GATEWAY_HEAD,
    causes,
    duration,
    facts,
    gateway_cells,
    headline,
    scenario_lines,
    what_if_title,
)

if TYPE_CHECKING:
    from dnc_async.engine.report.record import RunRecord

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Gap report: {title}</title>
<style>body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}</style>
{body}
</html>
"""
_BAR = '<span style="display:inline-block;height:0.7em;background:#0072b2;width:{width:.1f}px"></span>'


def page(report: RunRecord, svg: str = "") -> str:
    """A whole page; ``svg`` is a picture to place at its top, and is not escaped."""
    return _PAGE.format(title=escape(report.dataset), body=svg + tables(report))


def tables(report: RunRecord) -> str:
    """The tables alone."""
    first, second = headline(report).split("\n")
    parts = [f"<p><b>{escape(first)}</b><br>{escape(second)}</p>"]
    if report.causes:
        rows = (
            (escape(name), escape(duration(seconds)), f"{share:.1%}", _BAR.format(width=160 * share))
            for name, seconds, share in causes(report)
        )
        parts.append(_table(("waited for", "", "", ""), rows))
    parts.append(_table((), ((escape(name), escape(text)) for name, text in facts(report))))
    parts.append(_table(GATEWAY_HEAD, (map(escape, gateway_cells(gateway)) for gateway in report.gateways)))
    what_if = scenario_lines(report)
    if what_if:
        head = (escape(what_if_title(report)), "")
        parts.append(_table(head, ((escape(name), escape(share)) for name, share in what_if)))
    return "<div>" + "\n".join(parts) + "</div>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; its cells are HTML already."""
    top = "".join(f'<th style="text-align:left">{name}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<tr>{top}</tr>' if top else ''}{body}</table>"
