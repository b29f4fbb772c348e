"""A report's parts as Markdown, and as an HTML page that needs nothing but itself."""

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto;
       padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.25em; margin-top: 2.2em }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 9px; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top }
th { font-weight: 600 } .wide { overflow-x: auto } .beyond { color: #b3471d; font-weight: 600 }
figure { margin: 1.2em 0 } img { max-width: 100% } figcaption, .quiet { color: #777 }
"""


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    text: str


class Table(NamedTuple):
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str = ""  # on the page to be opened at a click on this, where it is long


class Picture(NamedTuple):
    png: bytes
    caption: str


Part = Heading | Text | Table | Picture


def markdown(title: str, parts: Sequence[Part]) -> str:
    """The parts as Markdown; pictures are left to the page."""
    lines = [f"# {title}"]
    for part in parts:
        match part:
            case Heading(text):
                lines.append(f"## {text}")
            case Text(text):
                lines.append(text)
            case Table(header, rows, folded):
                rows = [header, ["---"] * len(header), *rows]
                cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
                table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
                lines.append(f"{folded}:\n\n{table}" if folded else table)
    return "\n\n".join(lines) + "\n"


def page(title: str, parts: Sequence[Part]) -> str:
    """The parts as a page; entries that end in * are those beyond both deviations."""
    body = "\n".join(_element(part) for part in parts)
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{name}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{name}</h1>\n{body}\n</html>\n"
    )


def _element(part: Part) -> str:
    match part:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Picture(png, caption):
            data, text = base64.b64encode(png).decode(), html.escape(caption)
            image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
            return f"<figure>{image}<figcaption>{text}</figcaption></figure>"
        case Table(header, rows, folded):
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
            body = "".join(f"<tr>{''.join(map(_entry, row))}</tr>\n" for row in rows)
            table = f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'
            if not folded:
                return table
            return f"<details><summary>{html.escape(folded)}</summary>{table}</details>"


def _entry(cell: str) -> str:
    beyond = ' class="beyond"' if cell.endswith("*") else ""
    return f"<td{beyond}>{html.escape(cell)}</td>"
