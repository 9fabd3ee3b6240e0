# SPDX-License-Identifier: BSD-3-Clause
"""What feeds a run, and what it waits for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trees import make_cub, tiny_config

from racnn.data import Images, Sample, read_split
from racnn.training.batches import Loader, in_order
from racnn.training.engine import Engine
from racnn.training.meters import Meters
from racnn.training.processes import Processes
from racnn.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device("cpu"))


class Counted(Images):
    """Says in place of the box which process has read it, and how often this process has read before."""

    reads = 0

    def __getitem__(self, index: int) -> Sample:
        self.reads += 1
        return super().__getitem__(index)._replace(box=torch.tensor((os.getpid(), self.reads)))


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cub(tmp_path_factory.mktemp("birds"), each=9)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_processes_of_a_loader_last_until_it_is_closed(birds: Path) -> None:
    images = Counted(read_split("cub", birds).train, 16)
    loader = Loader(images, 2)
    epochs = [list(loader(in_order(len(images), 3))) for _ in range(2)]
    abandoned = loader(in_order(len(images), 3))  # as a run that stops does
    next(abandoned)
    readers = [{int(number) for batch in epoch for number in batch.box[:, 0]} for epoch in epochs]
    were_alive = [alive(reader) for reader in readers[0]]
    loader.close()
    assert were_alive == [True, True]
    assert readers[0] == readers[1]
    assert not any(alive(reader) for reader in readers[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_kept_images_are_read_once_and_are_the_same(birds: Path, workers: int) -> None:
    images = Counted(read_split("cub", birds).train, 16)
    loader, numbers = Loader(images, workers, keep=True), in_order(len(images), 4)
    first = [*loader(numbers[:-1])]  # as an epoch without its incomplete batch
    again = [*loader([batch[::-1] for batch in numbers])]
    loader.close()
    for batch, other in zip(first, again, strict=False):
        assert all(torch.equal(a, b.flip(0)) for a, b in zip(batch, other, strict=True))
    reads = [int(count) for batch in again for count in batch.box[:, 1]]
    assert max(reads) == len(images)
    expected = torch.stack([images[number].image for number in numbers[-1][::-1]])
    assert torch.equal(again[-1].image, expected)


class Waits(TorchDispatchMode):
    """Counts the calls that would hold the program up until a GPU has finished."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        masked = any(index is not None and index.dtype == torch.bool for index in indices)
        self.found[name] += masked or name in (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "unique_dim",
        )
        return func(*args, **(kwargs or {}))


def within(waits: Waits, call: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any) -> Any:
        with waits:
            return call(*args)

    return watched


@pytest.mark.parametrize("gradient", ["exact", "difference", "antithetic"])
def test_a_step_waits_for_no_number(
    birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient: str
) -> None:
    waits = Waits()
    for owner, name in ((Engine, "train"), (Meters, "add")):
        monkeypatch.setattr(owner, name, within(waits, getattr(owner, name)))
    config = tiny_config(birds, rank_gradient=gradient, jitter=0.2, diversity=0.1)
    Trainer(config, read_split("cub", birds), tmp_path, ALONE).run()
    assert "convolution_backward" in waits.found
    assert +waits.found == Counter()


def test_sums_are_those_of_floats_in_any_order_of_names() -> None:
    generator = torch.Generator().manual_seed(0)
    meters, expected = Meters({"loss": 0.25}), {"sum images": 0.0, "loss": 0.25}
    for step in range(40):
        terms = {"loss": torch.rand((), generator=generator), "sum images": torch.tensor(step % 5)}
        if step % 2:
            terms = {"sum top-1 1": torch.tensor(3), **terms}
        meters.add(terms)
        for name, value in terms.items():
            weight = 1 if name.startswith("sum ") else int(terms["sum images"])
            expected[name] = expected.get(name, 0.0) + float(value) * weight
    assert meters.sums == expected
    assert Meters(meters.sums).sums == expected
