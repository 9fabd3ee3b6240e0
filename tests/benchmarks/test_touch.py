# SPDX-License-Identifier: BSD-3-Clause
"""The page to touch: what its server answers, and what a browser makes of it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
import torch
import touch_picture
from PIL import Image
from torch import Tensor

import touch
from racnn_ops import attention_crop, reference

ASKED: dict[str, Any] = {
    "window": [33.3, 41.7, 18.2],
    "target": [60.0, 50.0, 25.0],
    "size": 16,
    "interpolation": "bilinear",
    "antialias": True,
    "loss": "target",
    "blur": 4,
}
PICTURE = Path(__file__).resolve().parents[2] / "benchmarks/results/touch.png"
FILTERS = [("bilinear", False), ("bilinear", True), ("bicubic", True), ("area", False), ("lanczos3", False)]


def photograph() -> Image.Image:
    """Blobs of three colours, 96 x 128, in which a window finds its way."""
    y, x = np.mgrid[:96, :128]
    blobs = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 600) for cx, cy in ((60, 50), (90, 30), (30, 70))]
    return Image.fromarray((np.stack(blobs, 2) * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def server() -> Iterator[touch.Server]:
    server = touch.Server(touch.Photograph(photograph()))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def asked(server: touch.Server, method: str, path: str, **options: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, **options)
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    html = reply.getheader("Content-Type", "").startswith("text/html")
    assert "default-src 'none'" in reply.getheader("Content-Security-Policy", "")
    return reply.status, body.decode() if html else json.loads(body)


def pixels(url: str) -> Tensor:
    image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def loss_of(name: str, crop: Tensor, target: Tensor) -> Tensor:
    if name == "target":
        return ((crop - target) ** 2).mean()
    return -crop.mean() if name == "bright" else -crop[0].flatten(1).std(1, correction=0).mean()


# --- The server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", touch.LOSSES)
@pytest.mark.parametrize(("interpolation", "antialias"), FILTERS)
def test_crop_and_gradient_are_those_of_the_operator(
    server: touch.Server, interpolation: str, antialias: bool, loss: str
) -> None:
    filters = {"interpolation": interpolation, "antialias": antialias}
    status, answer = asked(server, "POST", "/crop", body=json.dumps(ASKED | filters | {"loss": loss}))
    assert status == 200
    window = torch.tensor([ASKED["window"]])
    options: dict[str, Any] = filters | {"boundary": "border"}
    crop = attention_crop(server.photograph.pixels, window, 16, **options)
    assert torch.equal(pixels(answer["crop"]), crop[0])

    seen = server.photograph.blurred[4].double()
    exact = window.double().requires_grad_()
    target = reference.attention_crop(seen, torch.tensor([ASKED["target"]]).double(), 16, **options)
    value = loss_of(loss, reference.attention_crop(seen, exact, 16, **options), target)
    value.backward()
    assert exact.grad is not None
    assert exact.grad.abs().max() > 1e-4
    assert answer["loss"] == pytest.approx(value.item(), rel=1e-4)
    torch.testing.assert_close(torch.tensor([answer["gradient"]]).double(), exact.grad, rtol=1e-3, atol=1e-5)


def test_nearest_has_no_gradient(server: touch.Server) -> None:
    fields = ASKED | {"interpolation": "nearest", "antialias": False}
    status, answer = asked(server, "POST", "/crop", body=json.dumps(fields))
    assert (status, answer["gradient"]) == (200, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("size", [1, 16])
def test_what_has_no_spread_has_no_gradient(size: int) -> None:
    flat = touch.Photograph(Image.new("RGB", (20, 10), "red"))
    answer = flat.answer(touch.Request.read(json.dumps(ASKED | {"loss": "detail", "size": size}).encode()))
    assert [answer["loss"], *answer["gradient"]] == pytest.approx([0.0] * 4, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": [1, 2]}, "window must be three numbers"),
        ({"window": [1, 2, True]}, "window must be three numbers"),
        ({"window": "1, 2, 3"}, "window must be three numbers"),
        ({"window": [1, 2, 0]}, "window must be from -1e5 to 1e5"),
        ({"target": [float("nan"), 2, 3]}, "target must be from -1e5 to 1e5"),
        ({"target": [10**400, 2, 3]}, "target must be from -1e5 to 1e5"),
        ({"size": 0}, "size must be"),
        ({"size": 513}, "size must be"),
        ({"size": 16.0}, "size must be"),
        ({"loss": "other"}, "loss must be"),
        ({"loss": ["target"]}, "loss must be"),
        ({"blur": 3}, "blur must be"),
        ({"interpolation": "other"}, "interpolation must be"),
        ({"interpolation": []}, "interpolation must be"),
        ({"antialias": "yes"}, "antialias must be"),
        ({"interpolation": "nearest"}, "antialias must be False"),
        ({"more": 1}, "a JSON object of"),
    ],
)
def test_wrong_fields_are_named(server: touch.Server, change: dict[str, Any], message: str) -> None:
    status, answer = asked(server, "POST", "/crop", body=json.dumps(ASKED | change))
    assert status == 400
    assert message in answer["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 4000, b" " * 5000])
def test_what_is_no_request_is_refused(server: touch.Server, body: bytes) -> None:
    status, answer = asked(server, "POST", "/crop", body=body)
    assert status == 400
    assert answer["error"]


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "+5"])
def test_wrong_lengths_are_refused(server: touch.Server, length: str) -> None:
    status, answer = asked(server, "POST", "/crop", headers={"Content-Length": length})
    assert status == 400
    assert "Content-Length" in answer["error"]


@pytest.mark.parametrize(
    "path", ["/touch.py", "/../touch.py", "/%2e%2e/touch.py", "//etc/passwd", "/?", "/."]
)
def test_nothing_else_is_served(server: touch.Server, path: str) -> None:
    assert asked(server, "GET", path)[0] == 404
    assert asked(server, "POST", path, body="{}")[0] == 404


def test_foreign_names_are_refused(server: touch.Server) -> None:
    for method, path in (("GET", "/photograph"), ("POST", "/crop")):
        status, answer = asked(server, method, path, body=json.dumps(ASKED), headers={"Host": "example.org"})
        assert status == 403
        assert server.address in answer["error"]


def test_the_page_is_one_file_that_loads_nothing(server: touch.Server) -> None:
    status, page = asked(server, "GET", "/")
    assert (status, page) == (200, touch.PAGE.read_text(encoding="utf-8"))
    assert re.findall(r"https?:|(?:src|href)=(?!\"data:)|@import|url\(", page) == []


def test_photographs_are_turned_and_reduced(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("L", (2048, 512), 77).save(tmp_path / "turned.png", exif=exif)
    loaded = touch.load(tmp_path / "turned.png").pixels
    assert loaded.shape == (1, 3, 1024, 256)
    assert (loaded == 77).all()


# --- The page ---------------------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(chromium.find() is None, reason="no Chromium is installed")


class Page:
    """The page in a browser, and what it is to show."""

    def __init__(self, browser: chromium.Chromium, server: touch.Server) -> None:
        self.browser, self.server = browser, server
        browser.open(server.address)
        browser.wait_for("state.answers > 0 && !asking")
        self.choose("blur", 8)  # the photograph is small

    def settle(self) -> None:
        self.browser.wait_for("!asking && !state.descending && $('crop').complete")

    def choose(self, name: str, value: object) -> None:
        event = "new Event('input', {bubbles: true})"
        self.browser.value(f"$('{name}').value = {json.dumps(value)}; $('{name}').dispatchEvent({event})")
        self.settle()

    def window(self) -> list[float]:
        found: list[float] = self.browser.value("state.window")
        return found

    def on_screen(self, x: float, y: float) -> tuple[float, float]:
        corner = "(({left, top}) => [left, top, scale])(canvas.getBoundingClientRect())"
        left, top, scale = self.browser.value(corner)
        return left + scale * x, top + scale * y

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """In pixels of the photograph."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        self.browser.drag([self.on_screen(*point) for point in (start, middle, end)])
        self.settle()

    def shown(self) -> Tensor:
        return pixels(self.browser.value("$('crop').src"))

    def assert_crop_is_the_window_s(self) -> None:
        options: dict[str, Any] = {"antialias": True, "boundary": "border"}
        window = torch.tensor([self.window()])
        crop = attention_crop(self.server.photograph.pixels, window, 64, **options)
        assert torch.equal(self.shown(), crop[0])
        assert self.browser.errors == []

    def descent(self) -> list[float]:
        """Minus the derivative of what the page has chosen, by differences; the largest is 1."""

        def loss(window: Tensor) -> float:
            seen = self.server.photograph.blurred[8].double()
            windows = torch.stack((window, torch.tensor(self.browser.value("state.target")))).double()
            options: dict[str, Any] = {"antialias": True, "boundary": "border"}
            crop, target = reference.attention_crop(seen.expand(2, -1, -1, -1), windows, 64, **options)
            return (crop - target).square().mean().item()

        here = torch.tensor(self.window(), dtype=torch.float64)
        slopes = torch.stack([torch.tensor(loss(here - s) - loss(here + s)) for s in 1e-3 * torch.eye(3)])
        return (slopes / slopes.abs().max()).tolist()


@pytest.fixture(scope="module", params=["mouse", "finger"])
def browser(request: pytest.FixtureRequest) -> Iterator[chromium.Chromium]:
    finger = request.param == "finger"
    with chromium.Chromium((360, 780) if finger else (900, 600), touch=finger) as browser:
        yield browser


@pytest.fixture
def page(browser: chromium.Chromium, server: touch.Server) -> Page:
    return Page(browser, server)


@pytest.mark.slow
@needs_chromium
def test_a_drag_moves_the_window_and_changes_the_crop(page: Page) -> None:
    (x, y, half), before = page.window(), page.shown()
    page.assert_crop_is_the_window_s()
    page.drag((x, y), (x - 20, y + 12))
    assert page.window() == pytest.approx([x - 20, y + 12, half], abs=1)
    assert not torch.equal(page.shown(), before)
    page.assert_crop_is_the_window_s()


@pytest.mark.slow
@needs_chromium
def test_a_corner_resizes(page: Page) -> None:
    x, y, half = page.window()
    page.drag((x + half, y + half), (x + half + 9, y + half + 9))
    assert page.window() == pytest.approx([x, y, half + 9], abs=1)
    page.assert_crop_is_the_window_s()


@pytest.mark.slow
@needs_chromium
def test_keys_move_and_resize(page: Page) -> None:
    x, y, half = page.window()
    page.browser.value("canvas.focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "+", "+", "+", "-"):
        page.browser.press(key)
    page.settle()
    assert page.window() == pytest.approx([x + 2, y - 1, half + 2])
    page.assert_crop_is_the_window_s()


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("start", [[30, 60, 22], [80, 60, 38]])
def test_arrows_show_the_way_down(page: Page, start: list[float]) -> None:
    page.browser.value(f"move({start})")
    page.settle()
    (x, y, half), (dx, dy, dl) = start, page.descent()
    arrows = page.browser.value("arrows()")
    corners = [(i, j) for i in (1, -1) for j in (1, -1)]
    expected = [[x, y, half * dx, 0], [x, y, 0, half * dy]]
    expected += [[x + i * half, y + j * half, i * half * dl / 2, j * half * dl / 2] for i, j in corners]
    torch.testing.assert_close(
        torch.tensor([arrow[:4] for arrow in arrows]), torch.tensor(expected), rtol=0, atol=0.05 * half
    )
    assert [arrow[4] for arrow in arrows] == ["tx", "ty", *["tl"] * 4]

    # And they are drawn: on their ways, past the white handles, is their colour.
    for name in ("tx", "ty", "tl"):
        ax, ay, adx, ady, _ = next(arrow for arrow in arrows if arrow[4] == name)
        at = f"{ax + 0.7 * adx} * scale, {ay + 0.7 * ady} * scale, 1, 1"
        red, green, blue, _ = page.browser.value(f"[...canvas.getContext('2d').getImageData({at}).data]")
        assert f"#{red:02x}{green:02x}{blue:02x}" == page.browser.value(f"COLOURS.{name}")


@pytest.mark.slow
@needs_chromium
def test_descent_finds_the_target(page: Page) -> None:
    before = page.browser.value("state.loss")
    page.browser.value("$('descend').click()")
    page.settle()
    assert page.browser.value("state.loss") < before / 1000
    assert page.window() == pytest.approx(page.browser.value("state.target"), abs=0.5)
    page.assert_crop_is_the_window_s()


@pytest.mark.slow
@needs_chromium
def test_an_error_is_shown_and_gone_with_the_next_answer(page: Page) -> None:
    page.browser.value("{ state.target = [1, 2, 0]; refresh(); }")
    page.browser.wait_for("$('error').textContent.includes('target must be from')")
    page.browser.value("{ state.target = [1, 2, 3]; refresh(); }")
    page.browser.wait_for("$('error').textContent === '' && !asking")


@pytest.mark.slow
@needs_chromium
def test_nothing_is_wider_than_the_screen(page: Page) -> None:
    assert page.browser.value("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@needs_chromium
def test_the_committed_picture_is_of_this_page() -> None:
    with Image.open(PICTURE) as image:
        committed = np.asarray(image.convert("L"), dtype=float)
    shown = np.asarray(touch_picture.picture().convert("L"), dtype=float)
    assert committed.shape == shown.shape
    other = np.abs(committed - shown) > 48
    renew = "python tools/touch_picture.py --output benchmarks/results/touch.png"
    assert other.mean() < 0.1, renew  # other fonts alone are half of that
    assert other[45:390, 12:529].mean() < 0.002, renew  # the photograph, where there are none
