# SPDX-License-Identifier: BSD-3-Clause
"""Several processes: DistributedDataParallel, and data loaders whose workers crop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from samples import generator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from racnn_ops import AttentionCrop, attention_crop

pytestmark = pytest.mark.slow


class Model(nn.Module):
    """Two scales of RA-CNN in small: features, a window, a crop, features again."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.attention = nn.Linear(4, 3)
        self.crop = AttentionCrop(8, mask_steepness=1.0)

    def forward(self, images: Tensor) -> Tensor:
        windows = self.attention(self.first(images).mean((2, 3))).sigmoid() * images.shape[-1]
        return self.second(self.crop(images, windows)).relu().mean((2, 3))


IMAGES = torch.randn(4, 3, 16, 16, generator=generator("images"))


def gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    model(images).square().mean().backward()
    return {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}


def train(rank: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # where there is no network as well
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = DistributedDataParallel(Model())
    torch.save(gradients(model, IMAGES[2 * rank : 2 * rank + 2]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without torch.distributed")
def test_distributed_data_parallel_has_the_gradients_of_one_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train, (tmp_path,), nprocs=2)
    alone = gradients(Model(), IMAGES)
    assert alone["attention.weight"].abs().max() > 1e-6
    for rank in range(2):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, gradient in alone.items():
            torch.testing.assert_close(together[name], gradient, rtol=1e-4, atol=1e-7)


class Crops(Dataset[Tensor]):
    """Large enough to be shared out among threads, where there are some."""

    windows = torch.tensor([[100.0, 90.0, 40.5], [80.0, 120.0, 70.25], [60.0, 60.0, 60.0]])

    def __init__(self) -> None:
        self.image = torch.randn(1, 3, 200, 200, generator=generator("image"))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        return attention_crop(self.image, self.windows[index : index + 1], 224)[0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers_crop(start: str) -> None:
    crops = Crops()
    expected = torch.stack([crops[index] for index in range(len(crops))])  # threads exist before the fork
    loader = DataLoader(crops, batch_size=3, num_workers=2, multiprocessing_context=start, timeout=100)
    (batch,) = loader
    assert torch.equal(batch, expected)
