"""A report as one HTML file: nothing is fetched, and it prints."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping

_BAR = re.compile(r"(?<!\\)\|")  # between cells; one within a cell is escaped
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #111; }
h1 { margin-bottom: .2rem } h2 { margin-top: 2rem; border-bottom: 1px solid #bbb; font-size: 1.15rem }
p.verdict { font-size: 1.15rem; border-left: 4px solid #0072B2; padding-left: .8rem }
blockquote { border-left: 4px solid #E69F00; margin: .6rem 0; padding: .2rem .8rem; background: #fdf6e8 }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .82rem; margin: .6rem 0 }
td, th { border-bottom: 1px solid #ddd; padding: .2rem .5rem; text-align: left; vertical-align: top }
code { font-size: .9em } figure { margin: 1.2rem 0; break-inside: avoid } figure svg { max-width: 100%; height: auto }
figcaption { font-weight: 600; font-size: .95rem }
@media print { body { max-width: none; margin: 0; font-size: 11px } h2 { break-after: avoid } }
"""


def page(markdown: str, figures: Mapping[str, str]) -> str:
    """The Markdown of a report, which this project writes itself, and its figures, as one page."""
    title, body = "", list(_blocks(markdown))
    for block in body:
        if block.startswith("<h1>"):
            title = re.sub("<.*?>", "", block)
            break
    drawn = [f"<figure><figcaption>{html.escape(name)}</figcaption>{svg}</figure>" for name, svg in figures.items()]
    head = f'<meta charset="utf-8"><title>{title}</title><meta name="viewport" content="width=device-width">'
    heading = ["<h2>Figures</h2>"] if drawn else []
    parts = [f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>", *body, *heading, *drawn]
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _blocks(markdown: str) -> Iterator[str]:
    """Headings, quotes, lists, tables and paragraphs: what ``report.markdown`` writes, and nothing else."""
    seen_verdict = False
    for block in re.split(r"\n{2,}", markdown.strip()):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            rows = [line for line in lines if line.startswith("|")]
            yield _table(rows)
            yield from (f"<p>{_inline(line)}</p>" for line in lines if not line.startswith("|"))
        elif match := re.match(r"(#+) (.*)", lines[0]):
            level = len(match[1])
            yield f"<h{level}>{_inline(match[2])}</h{level}>"
        elif lines[0].startswith("> "):
            yield f"<blockquote>{_inline(' '.join(line[2:] for line in lines))}</blockquote>"
        elif lines[0].startswith("- "):
            yield "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>"
        else:
            kind = "" if seen_verdict else ' class="verdict"'
            seen_verdict = True
            yield f"<p{kind}>{_inline(' '.join(lines))}</p>"


def _table(lines: list[str]) -> str:
    rows = [[_inline(cell.strip().replace("\\|", "|")) for cell in _BAR.split(line)[1:-1]] for line in lines]
    head = "".join(f"<th>{cell}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows[2:])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
