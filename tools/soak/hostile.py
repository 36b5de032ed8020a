"""Hostile text in everything that is shown as HTML: looked at as a string, and opened in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import test_views
from figures import Figure
from toys import toy_model, toy_tokenizer

from dsgp_lab import Lab, LabError
from dsgp_lab.doctor import Check, Diagnosis
from dsgp_lab.panels.face import error_html
from dsgp_lab.report import Report

HOSTILE = (
    "film <img src=x onerror=alert(1)></script><script>alert(2)</script>\"'><svg onload=alert(3)></svg>"
    '<a href="javascript:alert(4)">warm</a></pre></style><iframe srcdoc="<script>parent.alert(5)</script>">'
)
HARMLESS = "a warm funny film"
BAR = "nothing of it is markup"


def lab_with_labels(folder: Path, labels: list[str]) -> Lab:
    """A lab on a toy model whose classes have these names."""
    model = toy_model("bert", len(labels), seed=1, max_position_embeddings=512)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {name: number for number, name in enumerate(labels)}
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return Lab.from_pretrained(folder, block_size=16)


def results(lab: Lab, text: str) -> Iterator[tuple[str, str]]:
    """Name and HTML of what the lab gives for a text."""
    run, comparison = lab.prune(text, keep=0.5), lab.compare(text, HARMLESS)
    yield "run", run._repr_html_()
    yield "comparison", comparison._repr_html_()
    yield "comparison's view", comparison.view().html()
    yield "heat map", lab.heatmap(text).html()
    yield "pruned heat map", lab.heatmap(text, keep=0.5).html()
    gallery = lab.gallery([text, HARMLESS], tags=[text, "b"])
    yield "gallery by label", gallery.view().html()
    yield "gallery by tag", gallery.view("tag").html()
    yield "report", Report(text, ((text, text),), (text, text), (text,)).html()
    yield "diagnosis", Diagnosis((Check(text, "missing", text, text),))._repr_html_()
    yield "mistake", error_html(LabError(got=text, allowed=text, hint=text))
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        yield "error", error_html(error)


def panels(lab: Lab, text: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Name and HTML of what the panels show, and the exported page."""
    explorer = lab.explore(text)
    explorer.wait()
    explorer.toggle(("head", 0, 1))
    explorer.wait()
    for name, card in explorer.face.html.items():
        yield f"explorer's {name}", card.value
    for number, child in enumerate(explorer.face.drill.children):
        yield f"explorer's unit, {number}", getattr(child, "value", "")
    yield "exported page", explorer.export(folder / "state.html").read_text("utf-8")
    explorer.close()
    compared = lab.compare_panel(text, HARMLESS)
    for number, card in enumerate(compared.cards):
        yield f"comparison's card {number}", card.value
    yield "comparison's status", compared.status.value
    compared.close()


@contextmanager
def pages(text: str) -> Iterator[dict[str, str]]:
    """All HTML that holds a text: views, results, panels; class names hold it too."""
    with TemporaryDirectory() as home:
        folder = Path(home)
        lab = lab_with_labels(folder / "model", [text, "other"])
        found = {f"view: {name}": make(text).html() for name, make in test_views.VIEWS.items()}
        yield found | dict(results(lab, text)) | dict(panels(lab, text, folder))


class Markup(HTMLParser):
    """Collects what could run: handlers, addresses of scripts, script elements, frames, images."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag or attribute that runs something or loads something."""
        if tag in ("script", "iframe", "img", "svg", "object", "embed"):
            self.active.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.active.append(f"{tag} {name}")


def active(html: str) -> list[str]:
    """What in a page could run."""
    parser = Markup()
    parser.feed(html)
    parser.close()
    return sorted(parser.active)


def as_strings() -> Figure:
    """A page with hostile text has exactly the active parts of the same page with a harmless one."""
    with pages(HOSTILE) as bad, pages(HARMLESS) as good:
        shown = [name for name, html in bad.items() if html]
        different = [name for name in shown if active(bad[name]) != active(good[name])]
        raw = [name for name in shown if "<img src=x" in bad[name] or "<script>alert" in bad[name]]
    wrong = sorted({*different, *raw})
    found = f"{len(shown)} pieces of HTML, {len(wrong)} with active parts of the text"
    found += f": {', '.join(wrong)}" if wrong else ""
    return Figure("hostile text, as strings", found, BAR, not wrong)


def in_browser() -> Figure:
    """Every piece opened in Chromium; a script that runs would call `alert`, which is listened to."""
    check = "hostile text, in a real browser"
    try:
        from browser_test import ARGUMENTS, find_browser
        from playwright.sync_api import sync_playwright
    except ImportError:
        return Figure(check, "needs Playwright", BAR, None)
    try:
        browser_path = find_browser()
    except SystemExit as error:
        return Figure(check, str(error), BAR, None)
    ran: list[str] = []
    with pages(HOSTILE) as found, sync_playwright() as play, TemporaryDirectory() as home:
        shown = {name: html for name, html in found.items() if html}
        browser = play.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        page = browser.new_page()
        page.expose_function("ran", lambda what: ran.append(str(what)))
        page.add_init_script("window.alert = what => window.ran(what); window.hit = window.alert")
        page.set_content("<script>alert('heard')</script>")
        page.goto("about:blank")
        page.evaluate("() => alert('heard')")
        heard, where = "heard" in ran, []
        for number, (name, html) in enumerate(shown.items()):
            ran.clear()
            path = Path(home) / f"{number}.html"
            path.write_text(f'<!DOCTYPE html><meta charset="utf-8">{html}', "utf-8")
            page.goto(path.as_uri(), wait_until="load")
            page.wait_for_timeout(150)
            where += [f"{name} ({ran[0]})"] if ran else []
        browser.close()
    text = f"{len(shown)} pieces of HTML, scripts of the text ran in {len(where)}"
    text += f": {', '.join(where)}" if where else ""
    return Figure(check, text if heard else "alert was not heard", "no script runs", heard and not where)
