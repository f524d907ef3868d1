"""A browser's window with the page in it: Debian's chromium before a real server with a tiny inverter.

Test modules take the fixtures with `pytest_plugins`, and import this file before pytest does (PYTEST_DONT_REWRITE).
A screenshot of each look is kept in $EMBINV_ARTEFACTS (default: runs/artefacts).
"""

import base64
import json
import os
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from serve_app.app import PROJECT_ROOT, AppArgs
from serve_app.local import serve_checkpoint

ARTEFACTS = Path(os.environ.get("EMBINV_ARTEFACTS") or PROJECT_ROOT / "runs" / "artefacts")
DESK = {"width": 1280, "height": 900}
expect.set_options(timeout=20_000)  # the servers of other tests may want the same cores
TEXT = "The parcel is at the north gate."


@pytest.fixture(scope="module")
def base_url(ray_cluster, tiny_checkpoint):
    with serve_checkpoint(AppArgs(encoder="minilm", checkpoint=str(tiny_checkpoint), encode=True), port=0) as url:
        yield url


@pytest.fixture(scope="module")
def chromium(base_url):  # after the server, which cannot end inside Playwright's event loop
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("there is no chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, base_url):
    """Opens the page in a window of its own; whatever the console says is an error in the end, unless expected."""
    contexts, said, expected = [], [], []

    def open_page(expect_errors=(), before=None, **options):
        context = chromium.new_context(**{"viewport": DESK, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        expected.extend(expect_errors)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        if before:
            before(page)
        response = page.goto(base_url)
        assert response.ok and "script-src 'self'" in response.headers["content-security-policy"]
        return page

    yield open_page
    for context in contexts:
        context.close()
    errors = [line for line in said if not any(part in line for part in expected)]
    assert not errors, f"the console says {errors}"


@pytest.fixture
def page(opened):
    page = opened()
    expect(page.locator("#status")).to_have_text("Ready.")
    return page


@pytest.fixture
def keep():
    """Keeps a screenshot of a page."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=ARTEFACTS / f"page-{name}.png", full_page=True)


def invert(page, text=TEXT):
    page.fill("#text", text)
    page.click("#invert")
    finished(page)


def finished(page):
    expect(page.locator("#status")).to_contain_text("Recovered:")
    expect(page.locator("[data-measure=Cosine] dd")).not_to_contain_text("being measured")
    expect(page.locator("#cancel")).to_be_disabled()


def ask(base_url, path, body):
    response = httpx.post(base_url + path, json=body, trust_env=False, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


def sent_vector(page):
    """The vector of the curl command."""
    command = page.locator("#curl").text_content()
    return np.frombuffer(base64.b64decode(json.loads(command.split("-d '")[1][:-1])["embedding"]), "<f4")


def drop(page, name, content):
    files = page.evaluate_handle(
        """([name, letters]) => {
            const moved = new DataTransfer();
            moved.items.add(new File([Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0))], name));
            return moved;
        }""",
        [name, base64.b64encode(content).decode()],
    )
    page.dispatch_event("#vector-panel", "drop", {"dataTransfer": files})


# Colours are drawn to be read as bytes; grounds lie over each other up to the body's.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
    return layers;
  };
  const drawn = (colours) => {
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    const light = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((byte) => byte / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
  };
  const wrong = [];
  for (const element of document.querySelectorAll("body, body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!(own || element.matches("input, select, textarea")) || !element.checkVisibility()) continue;
    if (element.matches(":disabled, noscript")) continue;
    const layers = ground(element);
    const [low, high] = [drawn(layers), drawn([...layers, getComputedStyle(element).color])].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) wrong.push([element.tagName, element.className, ratio]);
  }
  return wrong;
}"""
