"""Drive the course in a real browser: this environment's JupyterLab, the machine's Chromium, Playwright.

    python tools/browser_test.py                     # every notebook, then the explorer in depth
    python tools/browser_test.py --only explorer     # the explorer alone; panels: the other panels
    python tools/browser_test.py --only 02_sparsity_sliders.ipynb

Each notebook runs from the first cell to the last: no error output, no "Error displaying widget". In the
explorer the keep slider, a click on a head, the text box, export and the exported page are tried, and the
bars of time are measured. Pictures go to build/browser, at 1280 and 1920 pixels, light and dark.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "build" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NO_BROWSER = (
    "No Chromium found. Install it with the system's package manager (Debian, Ubuntu: apt-get install"
    " chromium; Fedora: dnf install chromium; macOS: brew install --cask chromium), or name a browser:"
    " BROWSER_PATH=/path/to/chrome make browser-test"
)
DRAG_MS, RELEASE_MS = 100.0, 500.0
"""Bars: from a slider's move to the new mask, and from its release to a measured time (26 tokens)."""

SLACK = 2.0
"""Only a time of this many bars counts as wrong: machines are busy. Bars are printed with the times."""

SENTENCE = (
    "Though the plot is thin and the jokes arrive late, the two leads make this little film a warm and"
    " surprising pleasure."
)


def find_browser() -> str:
    """Return the path of a Chromium, installed by apt-get where there is none and that is allowed."""
    named = os.environ.get("BROWSER_PATH")
    candidates = [named] if named else [path for name in BROWSERS if (path := shutil.which(name))]
    if not candidates and shutil.which("apt-get") and os.geteuid() == 0:
        print("Installing Chromium with apt-get...", flush=True)
        subprocess.run(["apt-get", "install", "-y", "-q", "chromium"], stdout=subprocess.DEVNULL, check=False)
        candidates = [path for name in BROWSERS if (path := shutil.which(name))]
    if not candidates:
        sys.exit(NO_BROWSER)
    return candidates[0]


@contextmanager
def jupyterlab(folder: Path, theme: str = "JupyterLab Light") -> Iterator[tuple[str, str]]:
    """Serve `folder` in JupyterLab on a free port of this machine; gives its address and token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    settings = folder.parent / "settings"
    write_setting(settings, "notebook-extension/tracker", {"windowingMode": "none"})
    write_setting(settings, "apputils-extension/themes", {"theme": theme})
    write_setting(
        settings, "apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False}
    )
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
               f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]  # fmt: skip
    log = (folder.parent / "jupyterlab.log").open("w")
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        await_server(f"{address}/api?token={token}", server)
        yield address, token
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def write_setting(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Store a setting of JupyterLab's own."""
    path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), "utf-8")


def await_server(url: str, server: subprocess.Popen[bytes], seconds: float = 180) -> None:
    """Wait until the server answers; long, for machines that are busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("JupyterLab did not start: see jupyterlab.log")


def open_notebook(page: Any, server: tuple[str, str], name: str) -> None:
    """Open a notebook and wait for its kernel."""
    address, token = server
    page.goto(f"{address}/lab/tree/{name}?token={token}&reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
        timeout=90_000,
    )
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")


def run_all(page: Any, minutes: float = 6) -> float:
    """Run all cells; returns the seconds it took."""
    start = time.monotonic()
    page.set_default_timeout(minutes * 60_000)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.set_default_timeout(30_000)
    return time.monotonic() - start


def faults(page: Any) -> list[str]:
    """List error outputs and widgets that could not be displayed."""
    errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
    found = [text.strip().splitlines()[-1] for text in errors.all_inner_texts()]
    if page.get_by_text("Error displaying widget").count():
        found.append("Error displaying widget")
    stderr = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')
    return found + [f"stderr: {text.strip()[:200]}" for text in stderr.all_inner_texts()]


def picture(page: Any, name: str, selector: str | None = None) -> Path:
    """Store a picture of the page, or of the first element that matches."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    if selector is None:
        page.screenshot(path=path)
    else:
        element = page.locator(selector).first
        element.scroll_into_view_if_needed()
        element.screenshot(path=path)
    return path


EXPLORER = f"""import torch
torch.set_num_threads(1)
from dsgp_lab import Lab
panel = Lab("sst2").explore({SENTENCE!r}, keep=0.6)
panel"""

CROSSES = (
    "Array.from(document.querySelectorAll('.dsgp-map .points path'))"
    ".filter(path => getComputedStyle(path).opacity !== '0').length"
)
WORDS = "document.querySelector('.dsgp-{name}').innerText"

PANELS = """import torch
torch.set_num_threads(1)
from dsgp_lab import Lab
lab = Lab("sst2")
sweep = lab.sweep_panel()
sweep.methods.value, sweep.budgets.value, sweep.limit.value = ["router", "random"], [0.4, 0.6], 16
display(lab.compare_panel("It is wonderful.", "It is slow at first, but the ending is wonderful.", 0.4))
sweep"""

WAIT_FOR_CHANGE = """async ({button, probes, wanted, key}) => {
  const read = () => probes.map(probe => String(eval(probe)));
  const before = read();
  const handle = document.querySelector(button);
  const start = performance.now();
  const changed = new Promise((resolve, reject) => {
    const look = () => {
      const now = read();
      if (now.some((text, i) => text === before[i]) || !now[0].match(new RegExp(wanted))) return;
      observer.disconnect();
      resolve(performance.now() - start);
    };
    const observer = new MutationObserver(look);
    const panel = document.querySelector(".dsgp-explorer");
    observer.observe(panel, {childList: true, subtree: true, characterData: true, attributes: true});
    setTimeout(() => reject(new Error("no change: " + before + " / " + read())), 20000);
  });
  handle.focus();
  handle.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  return await changed;
}"""


def after_key(page: Any, probes: list[str], wanted: str, key: str = "ArrowLeft") -> float:
    """Press a key on the keep slider; milliseconds until all probes (expressions) give something new.

    The first must also match `wanted`.
    """
    arguments = {"button": ".dsgp-keep .noUi-handle", "probes": probes, "wanted": wanted, "key": key}
    return float(page.evaluate(WAIT_FOR_CHANGE, arguments))


def settle(page: Any) -> None:
    """Wait until the explorer measures nothing more."""
    page.wait_for_function(
        "() => /paired rounds/.test(document.querySelector('.dsgp-time')?.innerText ?? '')"
        " && !/more rounds/.test(document.querySelector('.dsgp-time').innerText)",
        timeout=60_000,
    )


def words(page: Any, name: str) -> str:
    """Return what a card of the explorer says."""
    return str(page.locator(f".dsgp-{name}").first.inner_text())


def try_explorer(page: Any, folder: Path) -> dict[str, float]:
    """Use the explorer as a reader would; AssertionError where it does not answer. Returns the bars."""
    settle(page)
    before = {name: words(page, name) for name in ("prediction", "macs", "time")}
    crossed = page.evaluate(CROSSES)
    drags, releases = [], []
    macs, measured = WORDS.format(name="macs"), WORDS.format(name="time")
    for _ in range(15):  # one step after the other, as in a drag
        drags.append(after_key(page, [macs, CROSSES], "million"))
    settle(page)
    for _ in range(7):
        releases.append(after_key(page, [measured], "paired rounds"))
        settle(page)
    for name, text in before.items():
        assert words(page, name) != text, f"{name} did not change with the slider: {text}"
    assert page.evaluate(CROSSES) > crossed, "no more crosses at a lower budget"
    assert "Masked = compacted" in words(page, "check")

    plot = page.locator(".dsgp-map .nsewdrag").first
    box = plot.bounding_box()
    assert box is not None
    before_click = words(page, "macs")
    page.mouse.move(box["x"] + box["width"] * 1.5 / 12, box["y"] + box["height"] * 2.5 / 6)
    page.wait_for_timeout(200)
    page.mouse.click(box["x"] + box["width"] * 1.5 / 12, box["y"] + box["height"] * 2.5 / 6)
    page.wait_for_function(
        "text => document.querySelector('.dsgp-macs').innerText !== text", arg=before_click, timeout=10_000
    )
    page.wait_for_function("() => /left out of/.test(document.querySelector('.dsgp-effect').innerText)")
    assert "head 1" in words(page, "effect"), words(page, "effect")
    assert "Layer 3" in words(page, "effect"), words(page, "effect")

    text = page.locator(".dsgp-text input").first
    text.fill("   ")
    text.press("Enter")
    page.wait_for_selector(".dsgp-status [role=alert]")
    text.fill("A dull, <b>lifeless</b> film.")
    text.press("Enter")
    page.wait_for_function("() => !document.querySelector('.dsgp-status [role=alert]')", timeout=10_000)
    settle(page)
    page.get_by_role("button", name="Export").first.click()
    page.wait_for_function(
        "() => /Saved/.test(document.querySelector('.dsgp-status').innerText)", timeout=20_000
    )
    assert (folder / "explorer.html").is_file(), "the export is not there"
    return {"drag to redraw": median(drags), "release to measured time": median(releases)}


def try_panels(page: Any) -> None:
    """Swap the masks of a comparison, run a small sweep to its end."""
    page.wait_for_selector(".dsgp-compare .main-svg", timeout=60_000)
    before = page.locator(".dsgp-compare").inner_text()
    page.locator(".dsgp-compare").get_by_role("button", name="swapped").click()
    page.wait_for_function("text => document.querySelector('.dsgp-compare').innerText !== text", arg=before)
    assert "the other's mask" in page.locator(".dsgp-compare").inner_text()
    page.locator(".dsgp-sweep").get_by_role("button", name="Start", exact=True).click()
    page.wait_for_function(
        "() => /Done/.test(document.querySelector('.dsgp-sweep').innerText)", timeout=90_000
    )
    page.wait_for_selector(".dsgp-sweep .main-svg")
    page.wait_for_timeout(500)


def try_exported(page: Any, path: Path) -> None:
    """Open an exported page without any network; it must draw its figure."""
    page.context.set_offline(True)
    failures: list[str] = []
    page.on(
        "request", lambda request: failures.append(request.url) if request.url.startswith("http") else None
    )
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector(".main-svg", timeout=20_000)
    assert not failures, f"the exported page asks for {failures}"
    assert "lifeless" in page.inner_text("body")
    picture(page, "exported")
    page.context.set_offline(False)


def copy_of_course() -> Path:
    """Copy the notebooks into a new folder, so that what runs here changes nothing."""
    folder = Path(tempfile.mkdtemp(prefix="dsgp-browser-")) / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    kernel = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
    for name, source in (("explorer", EXPLORER), ("panels", PANELS)):
        content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=kernel)
        nbformat.write(content, folder / f"{name}.ipynb")
    return folder


def check_notebooks(browser: Any, server: tuple[str, str], folder: Path, only: str | None) -> list[str]:
    """Run every notebook; returns what went wrong."""
    wrong = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        if only not in (None, path.name):
            continue
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        open_notebook(page, server, path.name)
        seconds = run_all(page)
        found = faults(page)
        wrong += [f"{path.name}: {fault}" for fault in found]
        print(f"{path.name}: {'; '.join(found) or 'ok'} ({seconds:.1f} s)", flush=True)
        picture(page, f"{path.stem}_1280")
        for number, figure in enumerate(page.locator(".jp-OutputArea-output img, .dsgp-explorer").all()[:40]):
            figure.scroll_into_view_if_needed()
            figure.screenshot(path=PICTURES / f"{path.stem}_figure{number:02d}.png")
        page.close()
    return wrong


def check_explorer(browser: Any, server: tuple[str, str], folder: Path) -> list[str]:
    """Use the explorer, look at it in both widths and themes, open its export; returns what went wrong."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    start = time.monotonic()
    open_notebook(page, server, "explorer.ipynb")
    opened = time.monotonic() - start
    run_all(page)
    page.wait_for_selector(".dsgp-map .main-svg", timeout=60_000)
    seconds = time.monotonic() - start
    print(f"explorer: first figure {seconds:.1f} s after opening the notebook ({opened:.1f} s to its kernel)")
    wrong = faults(page)
    settle(page)
    for width in (1280, 1920):
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            page.set_viewport_size({"width": width, "height": 1300})
            page.evaluate(
                "t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})", theme
            )
            page.wait_for_timeout(1500)
            picture(page, f"explorer_{width}_{theme.split()[-1].lower()}")
    page.evaluate(
        "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
    )
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.wait_for_timeout(1000)
    try:
        bars = try_explorer(page, folder)
        picture(page, "explorer_used")
        for name, limit in (("drag to redraw", DRAG_MS), ("release to measured time", RELEASE_MS)):
            print(f"explorer: {name} {bars[name]:.0f} ms (median, bar {limit:.0f} ms)", flush=True)
            if bars[name] > SLACK * limit:
                wrong.append(f"{name}: {bars[name]:.0f} ms, bar {limit:.0f} ms")
        try_exported(browser.new_page(viewport={"width": 1280, "height": 1000}), folder / "explorer.html")
    except Exception as error:
        picture(page, "explorer_failed")
        wrong.append(f"explorer: {type(error).__name__}: {error}")
    page.close()
    return wrong


def check_panels(browser: Any, server: tuple[str, str]) -> list[str]:
    """Use the other panels; returns what went wrong."""
    page = browser.new_page(viewport={"width": 1280, "height": 2000})
    open_notebook(page, server, "panels.ipynb")
    run_all(page)
    wrong = faults(page)
    try:
        try_panels(page)
    except Exception as error:
        wrong.append(f"panels: {type(error).__name__}: {error}")
    picture(page, "panels_1280")
    page.close()
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run everything; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["explorer", "panels", *sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    parser.add_argument("--only", choices=names, help="one of them alone")
    options = parser.parse_args(arguments)
    browser_path = find_browser()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("Playwright is missing: pip install -c constraints.txt playwright, or make browser-test")
    folder = copy_of_course()
    wrong: list[str] = []
    with jupyterlab(folder) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        if options.only in (None, "explorer"):
            wrong += check_explorer(browser, server, folder)
        if options.only in (None, "panels"):
            wrong += check_panels(browser, server)
        if options.only not in ("explorer", "panels"):
            wrong += check_notebooks(browser, server, folder, options.only)
        browser.close()
    shutil.rmtree(folder.parent, ignore_errors=True)
    for fault in wrong:
        print("wrong:", " ".join(fault.split())[:500])
    print(f"pictures: {PICTURES.relative_to(ROOT)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
