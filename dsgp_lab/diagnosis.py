"""What the doctor found: one check a fact, printed as a table whose hints say what to do."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Check:
    """One fact: `ok`; `warn` (something optional is not there); or `missing` (the lab needs it)."""

    name: str
    status: Status
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All checks; prints as a table whose hints say what to do."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether everything that the lab needs is there; warnings do not count."""
        return all(check.status != "missing" for check in self.checks)

    def __str__(self) -> str:
        """One line a check, its hint below.

        >>> print(Diagnosis((Check("GPU", "ok", "none"), Check("GLUE", "warn", "not found", "set a folder"))))
        ok       GPU   none
        warn     GLUE  not found
                       -> set a folder
        Everything that the lab needs is here; warnings: 1.
        """
        width = max((len(check.name) for check in self.checks), default=0)
        lines = []
        for check in self.checks:
            lines.append(f"{check.status:<7}  {check.name:<{width}}  {check.detail}")
            if check.hint:
                lines.append(f"{'':<7}  {'':<{width}}  -> {check.hint}")
        return "\n".join([*lines, self._verdict()])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align:left">{html.escape(cell)}</td>'
                for cell in (check.status, check.name, check.detail, check.hint)
            )
            + "</tr>"
            for check in self.checks
        )
        head = "<thead><tr><th>status</th><th>what</th><th>found</th><th>what to do</th></tr></thead>"
        return f"<table>{head}<tbody>{rows}</tbody></table><p>{html.escape(self._verdict())}</p>"

    def _verdict(self) -> str:
        count = {status: sum(c.status == status for c in self.checks) for status in ("warn", "missing")}
        if count["missing"]:
            return f"Needed and missing: {count['missing']}; warnings: {count['warn']}."
        return f"Everything that the lab needs is here; warnings: {count['warn']}."
