# SPDX-License-Identifier: BSD-3-Clause
"""The runs whose instructions are counted, as words for run_kernels; of one image: counts are a number's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

_FEATURE_WINDOWS = "20.3,25.1,14.2/30.9,28.7,22.3/28.3,27.6,27.1/12.7,40.4,10.6"


@dataclass(frozen=True)
class CountedCase:
    kernel: str  # forward, window_grad, image_grad
    image: str = "float32"
    crop: str = "float32"
    windows: str = "224.3,220.7,112.4"  # of one image
    channels: int = 3
    size: int = 448  # of images, square
    out: int = 224  # of crops, square
    layout: str = "contiguous"
    result: str = ""  # the layout of what is written; otherwise the same
    antialias: bool = False

    @property
    def window_count(self) -> int:
        return self.windows.count("/") + 1

    @property
    def key(self) -> str:
        marks = [self.layout] if self.layout != "contiguous" else []
        marks += [f"to {self.result}"] if self.result else []
        marks += ["antialias"] if self.antialias else []
        shape = f"{self.channels}x{self.size}^2 -> {self.window_count}x{self.out}^2"
        return " ".join([self.kernel, f"{self.image}/{self.crop}", shape, *marks])

    @property
    def words(self) -> list[str]:
        sides = f"H={self.size} W={self.size} h={self.out} w={self.out}".split()
        types = [f"images={self.image}", f"crops={self.crop}", f"layout={self.layout}"]
        types += [f"result={self.result or self.layout}"]
        counts = [f"C={self.channels}", f"K={self.window_count}", f"windows={self.windows}"]
        return [self.kernel, *types, *counts, *sides, f"antialias={int(self.antialias)}"]

    @property
    def outputs(self) -> int:
        """Numbers of the crops, and for the image gradient of the image."""
        if self.kernel == "image_grad":
            return self.channels * self.size**2
        return self.window_count * self.channels * self.out**2


def counted_cases() -> Iterator[CountedCase]:
    for kernel in ("forward", "window_grad", "image_grad"):
        case = CountedCase(kernel)
        yield case
        yield replace(case, image="bfloat16", crop="bfloat16")
        if kernel != "image_grad":
            yield replace(case, image="uint8")
        strong = replace(case, channels=1, size=1024, windows="512.3,511.6,509.8")
        yield strong
        yield replace(strong, antialias=True)
        features = replace(case, channels=256, size=56, windows=_FEATURE_WINDOWS)
        yield from (replace(features, out=out) for out in (14, 7))
    for layout in ("contiguous", "channels_last"):
        yield CountedCase("forward", "uint8", "uint8", layout=layout)
    frames = CountedCase("forward", "uint8", layout="channels_last", result="contiguous")
    yield frames
    yield replace(frames, antialias=True)
