# SPDX-License-Identifier: BSD-3-Clause
"""The whole model as a file: each format answers as the model does, for any batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trees import random_images, tiny_backbone

from racnn import RACNN, Backbone, Usage
from racnn.export import METADATA, export
from racnn.targets import written_whole

SIDE = 48
CLASSES = ("red", "green", "blue")
BATCHES = (1, 3)  # the example's is 2

Answers = dict[str, Tensor]


def make(
    sizes: tuple[int, ...] = (24, 16),
    scales: int = 3,
    *,
    side: int = SIDE,
    source: str = "proposed",
    backbone: Any = tiny_backbone,
    **options: Any,
) -> RACNN:
    torch.manual_seed(0)
    model = RACNN(3, backbone, scales, sizes, weights=None, hidden=16, **options).eval()
    for n in range(1, scales):  # an untrained APN proposes nearly the same for all images
        nn.init.normal_(model.proposal(n).output.weight, std=0.3)
    model.usage = Usage(side, CLASSES, source)
    return model


@torch.no_grad()
def expected(model: RACNN, images: Tensor) -> Answers:
    output = model(images, window_source=model.usage.window_source)
    named = {f"logits_{n}": logits for n, logits in enumerate(output.logits, 1)}
    named |= {f"fused_logits_{n}": logits for n, logits in enumerate(output.fused_logits, 2)}
    return named | {f"windows_{n}": windows for n, windows in enumerate(output.windows, 2)}


def load_program(file: Path) -> tuple[Callable[[Tensor], Answers], str]:
    extra = {METADATA: ""}
    program = torch.export.load(file, extra_files=extra)
    ours = {str(node.target) for node in program.graph.nodes if "racnn" in str(node.target)}
    assert bool(ours) != file.name.endswith(".aten.pt2"), ours
    return program.module(), extra[METADATA]


def load_onnx(file: Path) -> tuple[Callable[[Tensor], Answers], str]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> Answers:
        values = session.run(names, {"images": images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return run, session.get_modelmeta().custom_metadata_map[METADATA]


def load_compiled(file: Path) -> tuple[Callable[[Tensor], Answers], str]:
    package = torch._inductor.aoti_load_package(str(file))
    return package, package.get_metadata()[METADATA]


LOADERS = {".pt2": load_program, ".aten.pt2": load_program, ".onnx": load_onnx, ".aoti.pt2": load_compiled}


def check(model: RACNN, ending: str, folder: Path) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxscript")
    file = folder / f"model{ending}"
    export(model, file)
    assert [path.name for path in folder.iterdir()] == [file.name]
    run, metadata = LOADERS[ending](file)
    assert json.loads(metadata) == {"classes": list(CLASSES), "image_side": model.usage.image_side}
    for batch in BATCHES:
        images = random_images(batch, model.usage.image_side)
        known, found = expected(model, images), run(images)
        assert list(known) == list(found)
        for name, value in known.items():
            # Windows are in pixels. torch's resize and ONNX's differ in the last bits.
            atol = 1e-3 if name.startswith("windows") else 1e-5
            torch.testing.assert_close(
                found[name], value, atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )


# All pairs of the three. The maps of the first's scales 1 and 2 have sides 17 and 28: APNs pool them to 14.
OPTIONS: dict[str, dict[str, Any]] = {
    "previous": {"sizes": (68, 112, 16)},
    "previous, windows, mask": {"num_windows": 2, "mask_steepness": 1.0},
    "image, mask": {"crop_from": "image", "mask_steepness": 1.0, "chain_gradient": False},
    "image, windows": {"crop_from": "image", "num_windows": 2},
}


@pytest.mark.parametrize("ending", [".pt2", ".aten.pt2", ".onnx"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_the_file_answers_as_the_model(options: dict[str, Any], ending: str, tmp_path: Path) -> None:
    check(make(**options), ending, tmp_path)


# Tokens in a grid of 17 x 17, which the APN pools to 14 x 14; and the network's own head.
@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
@pytest.mark.parametrize(("descriptor", "side"), [("mean", 272), ("fc", 64)])
def test_a_vision_transformer(descriptor: str, side: int, ending: str, tmp_path: Path) -> None:
    check(make((side, 48), 2, backbone="test_vit", descriptor=descriptor, side=64), ending, tmp_path)


def test_windows_of_a_model_without_apns(tmp_path: Path) -> None:
    check(make((24, 8), 2, source="response"), ".onnx", tmp_path)


@pytest.mark.slow
def test_a_compiled_package_answers_as_the_model(tmp_path: Path) -> None:
    check(make((16, 8), 2, side=16), ".aoti.pt2", tmp_path)


def test_the_output_is_taken_apart_and_put_together_by_export() -> None:
    model, images = make(), random_images(3, SIDE)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (random_images(2, SIDE),), dynamic_shapes=({0: batch},))
    output, again = model(images), program.module()(images)
    assert type(again) is type(output)
    for name, value in output.by_name().items():
        torch.testing.assert_close(again.by_name()[name], value)


def test_what_is_written_beside_a_file_goes_along(tmp_path: Path) -> None:
    def write() -> None:  # as ONNX does with more than 2 GB of weights
        with written_whole(tmp_path / "model.onnx") as temporary:
            temporary.write_text("graph")
            temporary.with_name("model.onnx.data").write_text("weights")

    write()
    assert (tmp_path / "model.onnx.data").read_text() == "weights"
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ValueError, match=r"model.onnx.data' is there already"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx.data"]


class Asks(nn.Module):
    """What no format can express: the way depends on a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, 2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layer(images)
        return features if images.sum() > 0 else -features


class Counts(nn.Module):
    """What ONNX cannot express."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, 2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layer(images)
        return torch.special.bessel_j0(features)


@pytest.mark.parametrize(("backbone", "ending"), [(Asks, ".pt2"), (Counts, ".onnx")])
def test_what_the_format_cannot_express_is_said_in_one_line(
    backbone: Callable[[], nn.Module], ending: str, tmp_path: Path
) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxscript")
    model = RACNN(3, lambda weights: Backbone(backbone()), 1, 16, weights=None).eval()
    with pytest.raises(ValueError, match=rf"model{ending}': .*(data-dependent|bessel_j0)") as caught:
        export(model, tmp_path / f"model{ending}")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused_before_any_work(tmp_path: Path) -> None:
    model = make()
    for name in ("model.pt", ".pt2", "model"):
        with pytest.raises(ValueError, match=r"must end with one of \.aoti\.pt2, \.aten\.pt2, \.pt2, \.onnx"):
            export(model, tmp_path / name)
    with pytest.raises(ValueError, match="evaluation mode"):
        export(make().train(), tmp_path / "model.pt2")
    with pytest.raises(ValueError, match="window_source must not be 'random'"):
        export(make(source="random"), tmp_path / "model.pt2")
    model.usage = Usage(SIDE, ("red", "green"))
    with pytest.raises(ValueError, match="classes must be 3 names or none, got 2"):
        export(model, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
    (tmp_path / "model.pt2").write_text("a program")
    with pytest.raises(ValueError, match=r"model.pt2' is there already: it is left as it is"):
        export(make(), tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").read_text() == "a program"
