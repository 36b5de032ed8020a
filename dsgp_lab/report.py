"""Small tables that print the same facts in a terminal, in markdown and in a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """A titled table of strings; the first column is left-aligned, the others right-aligned.

    >>> print(Report("Time", (("run", "3.1 ms"),), header=("step", "median")).text())
    Time
    step  median
    run   3.1 ms
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Aligned plain text."""
        lines = [self.header, *self.rows] if self.header else list(self.rows)
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))] if lines else []

        def aligned(line: tuple[str, ...]) -> str:
            cells = [
                c.ljust(w) if i == 0 else c.rjust(w)
                for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ]
            return "  ".join(cells).rstrip()

        return "\n".join([self.title, *map(aligned, lines), *self.notes])

    def markdown(self) -> str:
        """A GitHub table under a bold title."""
        width = len(self.header or (self.rows[0] if self.rows else ()))
        rule = ["---", *["---:"] * (width - 1)]
        lines = [self.header or ("",) * width, tuple(rule), *self.rows]
        table = "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)
        return "\n\n".join([f"**{self.title}**", table, *self.notes])

    def html(self) -> str:
        """An HTML table; every text is escaped."""

        def row(line: tuple[str, ...], tag: str) -> str:
            cells = (
                f'<{tag} style="text-align:{"right" if i else "left"}">{html.escape(c)}</{tag}>'
                for i, c in enumerate(line)
            )
            return f"<tr>{''.join(cells)}</tr>"

        head = f"<thead>{row(self.header, 'th')}</thead>" if self.header else ""
        body = "".join(row(line, "td") for line in self.rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            f"<table><caption>{html.escape(self.title)}</caption>{head}<tbody>{body}</tbody></table>{notes}"
        )

    _repr_html_ = html


class ReportedInParts:
    """What a result of several tables is printed as, one below the other; else as `Reported`."""

    def reports(self) -> tuple[Report, ...]:
        """The tables."""
        raise NotImplementedError

    def markdown(self) -> str:
        """GitHub tables."""
        return "\n\n".join(part.markdown() for part in self.reports())

    def __str__(self) -> str:
        """Text tables."""
        return "\n\n".join(part.text() for part in self.reports())

    def __repr__(self) -> str:
        """The same."""
        return str(self)

    def _repr_html_(self) -> str:
        return "".join(part.html() for part in self.reports())


class Reported:
    """What a result with a `report()` is printed as: text in a terminal, HTML in a notebook.

    A dataclass that inherits this says `repr=False`, or it would print its fields instead.
    """

    def report(self) -> Report:
        """The result as a table."""
        raise NotImplementedError

    def __str__(self) -> str:
        """A text table."""
        return self.report().text()

    def __repr__(self) -> str:
        """The same."""
        return str(self)

    def _repr_html_(self) -> str:
        return self.report().html()
