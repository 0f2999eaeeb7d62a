"""Headless Chromium for tests of pages: the browser of the system, driven by Playwright, without a network."""

import base64
import contextlib
import dataclasses
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CHROMIUM = shutil.which("chromium")
HAS_BROWSER = (
    CHROMIUM is not None
    and importlib.util.find_spec("playwright") is not None
    and importlib.util.find_spec("plotly") is not None
)
"""Tests in a browser are collected only where this holds."""

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

Browser = Any
"""A browser of Playwright, which may not be installed."""

# Pixels of a PNG, decoded by the browser itself: no further library is needed.
_DECODE = """async png => {
  const blob = await (await fetch(`data:image/png;base64,${png}`)).blob(), image = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, image.width, image.height);
  let text = "";
  for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
  return [image.width, image.height, btoa(text)];
}"""


@dataclasses.dataclass
class Opened:
    """A page in the browser, and what it complained of and asked for.

    Attributes:
        page: Playwright's page.
        complaints: Errors and warnings of the console, and uncaught exceptions.
        requests: Addresses that were asked for, the file itself included.
        dialogs: Messages of dialogs that scripts opened.
    """

    page: Any
    complaints: list[str] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)
    dialogs: list[str] = dataclasses.field(default_factory=list)

    def wait_for_chart(self, name: str) -> None:
        """Scrolls to a chart and waits until it is drawn."""
        self.page.locator(f"#{name}").scroll_into_view_if_needed()
        self.page.wait_for_selector(f"#{name}[data-drawn]", state="attached")

    def redrawn(self, name: str, action: Any) -> None:
        """Does something and waits until a chart was drawn once more."""
        before = int(self.page.locator(f"#{name}").get_attribute("data-drawn"))
        action()
        self.page.wait_for_function(
            "([name, before]) => Number(document.getElementById(name).dataset.drawn) > before", arg=[name, before]
        )

    def reset(self) -> None:
        """Puts all that a reader can choose back."""
        self.page.set_viewport_size(DESKTOP)
        self.page.emulate_media(color_scheme="light")
        self.page.evaluate(
            """async () => {
                for (const choice of document.querySelectorAll("select")) {
                  if (choice.selectedIndex === 0) continue;
                  choice.selectedIndex = 0;
                  choice.dispatchEvent(new Event("change"));
                }
                for (const box of document.querySelectorAll("input[type=checkbox]")) if (box.checked) box.click();
                for (const details of document.querySelectorAll("details")) details.open = false;
                document.querySelector("input[value=format]").click();
                for (let head; (head = document.querySelector("[aria-sort] button"));) head.click();
                const find = document.getElementById("find");
                find.value = "";
                find.dispatchEvent(new Event("input"));
                document.querySelector("#map tbody tr:nth-child(2) button").click();
                document.querySelector("#operands button").click();
                document.activeElement.blur();
                scrollTo(0, 0);
                // Charts that were drawn again for this are ready after a frame.
                for (let frame = 0; frame < 2; frame++) await new Promise(done => requestAnimationFrame(done));
                await new Promise(done => setTimeout(done));
            }"""
        )

    def texts(self, selector: str) -> list[str]:
        """Texts of all elements that a selector finds."""
        return list(self.page.locator(selector).all_text_contents())

    def styles(self, selector: str, name: str) -> list[str]:
        """A computed style of all elements that a selector finds."""
        script = "(all, name) => all.map(each => getComputedStyle(each)[name])"
        return list(self.page.locator(selector).evaluate_all(script, name))


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """Chromium; its sandbox would need rights that a container does not give."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Browser, file: Path, *, before: str = "", **options: Any) -> Iterator[Opened]:
    """A file in a window of its own; nothing but the file may be fetched.

    Args:
        browser: What `started` gives.
        file: The page.
        before: A script to run before those of the page.
        options: For Playwright's context.
    """
    context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
    result = Opened(context.new_page())
    if before:
        result.page.add_init_script(before)
    result.page.on("console", lambda message: result.complaints.append(f"{message.type}: {message.text}"))
    result.page.on("pageerror", lambda error: result.complaints.append(str(error)))
    result.page.on("dialog", lambda dialog: (result.dialogs.append(dialog.message), dialog.dismiss()))
    result.page.on("request", lambda request: result.requests.append(request.url))
    try:
        result.page.goto(file.as_uri())
        yield result
    finally:
        context.close()


def pixels(browser: Browser, png: bytes) -> npt.NDArray[np.uint8]:
    """A screenshot as ``[height, width, 3]``."""
    page = browser.new_page()
    try:
        width, height, data = page.evaluate(_DECODE, base64.b64encode(png).decode())
    finally:
        page.close()
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]
