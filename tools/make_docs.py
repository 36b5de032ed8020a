"""Write the API reference from the docstrings, as pages that need no server: build/docs/index.html.

    python tools/make_docs.py [FOLDER]

Made with pdoc. Public names are loaded lazily by the package; here they are put where pdoc looks for them,
and the modules below are listed beside them.
"""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

import pdoc

import dsgp_lab

ROOT = Path(__file__).resolve().parent.parent


def make_docs(folder: Path) -> Path:
    """Write the pages of the package and all its modules; returns the first page."""
    names = list(dsgp_lab.__all__)
    for name in names:
        setattr(dsgp_lab, name, getattr(dsgp_lab, name))
    dsgp_lab.__all__ = [*names, *sorted(module.name for module in pkgutil.iter_modules(dsgp_lab.__path__))]
    pdoc.render.configure(docformat="google", show_source=False, footer_text="DSGP Lab, API reference")
    try:
        pdoc.pdoc("dsgp_lab", output_directory=folder)
    finally:
        dsgp_lab.__all__ = names
    return folder / "dsgp_lab.html"


if __name__ == "__main__":
    print(make_docs(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"))
