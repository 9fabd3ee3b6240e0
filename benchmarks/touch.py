# SPDX-License-Identifier: BSD-3-Clause
"""A page to touch: drag a window over a photograph, see its crop, and which way a loss pulls the window.

Prints the address of the page, which this machine alone can open. Arrows are the derivatives of the loss by
``tx, ty, tl``, made by ``attention_crop``; "descend" follows them.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from skimage import data, filters
from torch import Tensor

from racnn_ops import attention_crop

PAGE = Path(__file__).with_suffix(".html")
LONGEST = 1024  # side of a photograph, which is reduced to it
BLURS = (0, 2, 4, 8, 16, 32)  # standard deviations in pixels
LOSSES = {
    "target": lambda crop, target: (crop - target).square().mean(),
    "bright": lambda crop, target: -crop.mean(),
    "detail": lambda crop, target: -crop.std(dim=(2, 3), correction=0).mean(),
}
FIELDS = {"window", "target", "size", "interpolation", "antialias", "loss", "blur"}
MOST_BYTES = 4096  # of a request


@dataclass(frozen=True)
class Request:
    """What the page asks: windows are ``tx, ty, tl`` in pixels, ``size`` is the crop's side."""

    window: Tensor
    target: Tensor
    size: int
    loss: str
    blur: int
    options: dict[str, Any]

    @classmethod
    def read(cls, text: bytes) -> Request:
        """Raises ValueError with what is wrong; interpolation and antialias are checked by the operator."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or set(fields) != FIELDS:
            raise ValueError(f"a JSON object of {', '.join(sorted(FIELDS))} is expected")
        size, loss, blur = (fields[name] for name in ("size", "loss", "blur"))
        if type(size) is not int or not 1 <= size <= 512:
            raise ValueError(f"size must be an integer from 1 to 512, got {size!r}")
        if not isinstance(loss, str) or loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        if type(blur) is not int or blur not in BLURS:
            raise ValueError(f"blur must be one of {', '.join(map(str, BLURS))}, got {blur!r}")
        options = {name: fields[name] for name in ("interpolation", "antialias")} | {"boundary": "border"}
        window, target = (_window(name, fields[name]) for name in ("window", "target"))
        return cls(window, target, size, loss, blur, options)


def _window(name: str, numbers: object) -> Tensor:
    if not isinstance(numbers, list) or [type(n) in (int, float) for n in numbers] != [True] * 3:
        raise ValueError(f"{name} must be three numbers, got {numbers!r}")
    if not all(abs(n) <= 1e5 for n in numbers) or numbers[2] <= 0:
        raise ValueError(f"{name} must be from -1e5 to 1e5, its half side above 0, got {numbers!r}")
    return torch.tensor([numbers], dtype=torch.float32)


class Photograph:
    """Its pixels (1, 3, H, W) as uint8, as floats blurred for the losses, and as PNG."""

    def __init__(self, image: Image.Image) -> None:
        image = ImageOps.exif_transpose(image).convert("RGB")
        image.thumbnail((LONGEST, LONGEST))
        self.png = _png(image)
        raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        self.pixels = raw.view(1, image.height, image.width, 3).permute(0, 3, 1, 2).contiguous()
        images = self.pixels.numpy() / 255
        self.blurred = {
            blur: torch.from_numpy(filters.gaussian(images[0], blur, channel_axis=0)).float()[None]
            for blur in BLURS
        }

    def answer(self, request: Request) -> dict[str, Any]:
        """The crop as PNG, and the loss with its derivatives by ``tx, ty, tl``, of the blurred photograph."""
        seen, window = self.blurred[request.blur], request.window.clone().requires_grad_()
        with torch.no_grad():
            shown = attention_crop(self.pixels, request.window, request.size, **request.options)[0]
            target = attention_crop(seen, request.target, request.size, **request.options)
        crop = attention_crop(seen, window, request.size, **request.options)
        loss = LOSSES[request.loss](crop, target)
        (gradient,) = torch.autograd.grad(loss, window)
        crop_shown = _png(Image.fromarray(shown.permute(1, 2, 0).numpy()))
        return {"crop": crop_shown, "loss": loss.item(), "gradient": gradient[0].tolist()}


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class Server(ThreadingHTTPServer):
    """Of one page on 127.0.0.1; ``port`` 0: any that is free."""

    daemon_threads = True

    def __init__(self, photograph: Photograph, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.photograph = photograph

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 10.0

    def do_GET(self) -> None:
        if not self._asked_here():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes())
        elif self.path == "/photograph":
            self._json(HTTPStatus.OK, {"photograph": self.server.photograph.png, "blurs": BLURS})
        else:
            self._json(HTTPStatus.NOT_FOUND, {"error": "there are / and /photograph"})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        known = re.fullmatch("[0-9]{1,9}", length)
        # Read even where it is refused: closed with something unread, a connection is reset.
        body = self.rfile.read(min(int(length), MOST_BYTES + 1)) if known else b""
        if not self._asked_here():
            return
        if self.path != "/crop":
            return self._json(HTTPStatus.NOT_FOUND, {"error": "requests go to /crop"})
        try:
            if not 0 < len(body) <= MOST_BYTES:
                raise ValueError(f"Content-Length must be from 1 to {MOST_BYTES}, got {length!r}")
            answer = self.server.photograph.answer(Request.read(body))
        except (TypeError, ValueError, RecursionError) as error:
            return self._json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        self._json(HTTPStatus.OK, answer)

    def _asked_here(self) -> bool:
        """By this machine's name, not by one that a foreign page has bound to its address."""
        port = self.server.server_port
        if self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return True
        self._json(HTTPStatus.FORBIDDEN, {"error": f"the page is {self.server.address}"})
        return False

    def _json(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(answer, allow_nan=False).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        inline = "script-src 'unsafe-inline'; style-src 'unsafe-inline'"
        policy = f"default-src 'none'; {inline}; img-src data:; connect-src 'self'"
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        headers |= {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        for name, value in headers.items():
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):  # a page that was closed
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing: a drag is dozens of requests."""


def load(path: Path | None) -> Photograph:
    if path is None:
        return Photograph(Image.fromarray(data.coffee()))  # by Rachel Michetti, CC0
    with Image.open(path) as image:
        return Photograph(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, help="a photograph; default: a cup of coffee, of scikit-image")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    arguments = parser.parse_args()
    try:
        server = Server(load(arguments.image), arguments.port)
    except (OSError, OverflowError, Image.DecompressionBombError) as error:
        parser.error(str(error))
    print(f"{server.address} (Ctrl+C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
