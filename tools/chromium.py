# SPDX-License-Identifier: BSD-3-Clause
"""One page in headless Chromium, driven by DevTools messages over a pipe: no driver, no package, no port.

Messages are JSON, each ended by a zero byte; Chromium reads them from descriptor 3 and answers on 4
(https://chromedevtools.github.io/devtools-protocol).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which needs rights that containers do not give: it shows pages of ours alone
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-breakpad",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)
SPAWN = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1'  # our pipes become the descriptors of the protocol
SECONDS = 60.0
"""The longest wait for an answer: machines are shared."""


def find() -> str | None:
    """The path of an installed Chromium: of the environment's ``CHROMIUM``, or one of ``NAMES``."""
    return next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), *NAMES))), None)


class Chromium:
    """A context that ends with the browser. Points are in CSS pixels, from the upper left.

    Args:
        size: the page's width and height in CSS pixels.
        touch: whether it is a telephone's: fingers instead of a mouse.

    Raises:
        FileNotFoundError: no Chromium is installed.
        TimeoutError: it does not answer.
        RuntimeError: it refuses, or a script of ours throws; what the page throws is kept in ``errors``.
    """

    def __init__(self, size: tuple[int, int], touch: bool = False) -> None:
        if (program := find()) is None:
            raise FileNotFoundError(f"none of {', '.join(NAMES)} is installed")
        self.touch, self.session, self.number, self.received = touch, "", 0, b""
        self.errors: list[str] = []
        self.folder = tempfile.mkdtemp()
        self.process = subprocess.Popen(
            ["sh", "-c", SPAWN, "sh", program, *FLAGS, f"--user-data-dir={self.folder}", "about:blank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # a group, to end all of its processes
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.write, self.read = self.process.stdin, self.process.stdout
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.call("Runtime.enable")
            shape = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": touch}
            self.call("Emulation.setDeviceMetricsOverride", **shape)
            self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.write.close()
        self.read.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def open(self, url: str) -> None:
        """Returns when the page is there, and what it loads at once."""
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href == {json.dumps(url)} && document.readyState == 'complete'")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What Chromium answers to a message."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write.fileno(), json.dumps(message).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while (answer := self._receive(until)).get("id") != self.number:  # events come between
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]["exceptionDetails"]))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self.received:
            if not select.select([self.read], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium has not answered within {SECONDS:.0f} s")
            if not (some := os.read(self.read.fileno(), 1 << 16)):
                raise RuntimeError("Chromium has ended")
            self.received += some
        message, _, self.received = self.received.partition(b"\0")
        return dict(json.loads(message))

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression, or of the promise that it is; something that JSON can hold."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {json.dumps(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        until = time.monotonic() + SECONDS
        while not self.value(condition):
            if time.monotonic() > until:
                raise TimeoutError(f"not within {SECONDS:.0f} s: {condition}")
            time.sleep(0.02)

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Down on the first point, over the others, and up on the last."""
        for n, (x, y) in enumerate((*points, points[-1])):
            moment = 0 if n == 0 else 2 if n == len(points) else 1
            if self.touch:
                kind = ("touchStart", "touchMove", "touchEnd")[moment]
                fingers = [] if moment == 2 else [{"x": x, "y": y}]
                self.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)
            else:
                kind = ("mousePressed", "mouseMoved", "mouseReleased")[moment]
                pressed = {"button": "left", "buttons": 1, "clickCount": 1}
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def press(self, key: str) -> None:
        """A key by the name that events give it, such as ``ArrowLeft`` or ``+``."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
