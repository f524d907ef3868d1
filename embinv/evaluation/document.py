"""What the pages of this project are made of: their style, sections, tables, lists and figures, as HTML.

A page opens without a network, runs no script, follows the reader's choice of light or dark, and prints. What stands
in one is given as HTML: a text that comes from outside has gone through `embinv.evaluation.markup` before.
"""

from collections.abc import Mapping, Sequence

from embinv.evaluation.drawing import Plot, svg

NOTHING = '<span aria-hidden="true">–</span><span class="unseen">not measured</span>'
CSS = """
:root { color-scheme: light; --paper: #ffffff; --ink: #22262b; --muted: #5b626d; --grid: #d5d9df;
  --link: #0b5ea8; --lost: #fdebd3; --found: #dcebf8; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --paper: #14171a; --ink: #e6e8eb; --muted: #a3abb5; --grid: #3a4149;
    --link: #7cc0f5; --lost: #4a3413; --found: #143a56; --series-1: #5bb5ee; --series-2: #f2914a;
    --series-3: #35c79f; --series-4: #e39bc8; --series-5: #d9c14a; --series-6: #b9bfc7; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--grid); padding-top: 1rem; }
p { max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0; list-style: none; }
nav a { display: inline-block; padding: 0.25rem 0; }
.scroll { position: relative; overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; color: var(--muted); font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--grid); padding: 0.3rem 0.7rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; white-space: normal; }
th { font-weight: 600; }
tbody th { font-weight: 400; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; max-width: 34rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: system-ui, sans-serif !important; }
summary { cursor: pointer; padding: 0.4rem 0; color: var(--link); }
.examples { padding-left: 2rem; }
.examples > li { margin: 1rem 0; border-top: 1px solid var(--grid); padding-top: 0.75rem; break-inside: avoid; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 0.2rem 1rem; margin: 0; }
dt { color: var(--muted); }
dd { margin: 0; min-width: 0; }
bdi { white-space: pre-wrap; overflow-wrap: anywhere; }
del, ins { position: relative; }
del { background: var(--lost); text-decoration: underline dashed; text-underline-offset: 0.2em; }
ins { background: var(--found); font-weight: 600; text-decoration: underline solid; text-underline-offset: 0.2em; }
.unseen, del::before, del::after, ins::before, ins::after { position: absolute; width: 1px; height: 1px;
  overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
del::before { content: " [not recovered: "; }
ins::before { content: " [not in the original: "; }
del::after, ins::after { content: "] "; }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 0.5rem; }
  .examples { padding-left: 1.5rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  h2 { break-after: avoid; } .scroll { overflow: visible; } th, td { white-space: normal; padding: 0.2rem 0.4rem; }
  .plots { grid-template-columns: 1fr 1fr; } #examples { break-before: page; }
  del, ins { print-color-adjust: exact; } }
"""


def document(title: str, header: str, sections: Mapping[str, str], style: str = "") -> str:
    """A whole page.

    Args:
        title: HTML, of the page and its first heading.
        header: HTML below that heading.
        sections: HTML by heading; an empty one is left out.
        style: CSS of this page alone.
    """
    kept = {name.lower().replace(",", "").replace(" ", "-"): (name, body) for name, body in sections.items() if body}
    links = [f'<li><a href="#{anchor}">{name}</a></li>' for anchor, (name, _) in kept.items()]
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{CSS}{style}</style>",
        "</head>",
        "<body>",
        f"<header><h1>{title}</h1>{header}</header>",
        f'<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav>',
        "<main>",
        *(f'<section id="{anchor}"><h2>{name}</h2>\n{body}</section>' for anchor, (name, body) in kept.items()),
        "</main>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; the first of each row names it."""
    head = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in header)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def folded_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table behind a plot, folded up."""
    return f"<details><summary>Numbers: {caption}</summary>\n{table(caption, header, rows)}</details>\n"


def figures(drawn: Mapping[str, Plot], captions: Mapping[str, str]) -> str:
    """Those of the plots that there are."""
    figures = [
        f"<figure>{svg(drawn[name], name)}\n<figcaption>{caption}</figcaption></figure>\n"
        for name, caption in captions.items()
        if name in drawn
    ]
    return f'<div class="plots">{"".join(figures)}</div>\n' if figures else ""


def number(value: float | None) -> str:
    """Three digits, or all of a whole number."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def listing(entries: Mapping[str, str]) -> str:
    """Terms and what is said of them, both HTML."""
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{told}</dd>' for name, told in entries.items())}</dl>\n"
