# SPDX-License-Identifier: BSD-3-Clause
"""Geometry of windows."""

from __future__ import annotations

import pytest
import torch

from racnn import windows
from racnn.windows import Bounds

BOUNDS = Bounds()


def random_raw(scale: float) -> torch.Tensor:
    return scale * torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_bounded_windows_keep_to_their_parent_and_bounds(scale: float) -> None:
    found = windows.bounded(random_raw(scale), BOUNDS)
    corners = windows.corners(found)
    assert corners.min() >= -1e-9
    assert corners.max() <= 1 + 1e-9
    # At least a third of the parent's half side, which is 1/2.
    assert found[:, 2].min() >= 1 / 6 - 1e-9
    assert found[:, 2].max() <= 1 / 2 + 1e-9


def test_bounded_windows_have_a_gradient_at_their_bounds() -> None:
    raw = torch.tensor([[0.3, -0.4, -8.0], [0.3, -0.4, 3.0]], dtype=torch.float64, requires_grad=True)
    for column in range(3):
        (gradient,) = torch.autograd.grad(windows.bounded(raw, BOUNDS)[:, column].sum(), raw)
        assert (gradient[:, column] != 0).all()


def test_unbounded_inverts_bounded() -> None:
    raw = random_raw(1.0)
    torch.testing.assert_close(windows.unbounded(windows.bounded(raw, BOUNDS), BOUNDS), raw)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.5, 0.5), (0.3, 1.1), (-1.0, 0.5)])
def test_impossible_bounds_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="half_side_bounds must hold"):
        Bounds(*bounds).check()


def test_compose_places_a_window_in_its_parent() -> None:
    parent = torch.tensor([100.0, 60.0, 40.0])
    # The parent's top left quarter.
    quarter = torch.tensor([0.25, 0.25, 0.25])
    assert windows.compose(parent, quarter).tolist() == [80.0, 40.0, 20.0]
    torch.testing.assert_close(windows.relative_to(parent, windows.compose(parent, quarter)), quarter)


def test_overlap_of_known_squares() -> None:
    a = windows.corners(torch.tensor([2.0, 2.0, 2.0]))
    assert windows.overlap(a, a) == 1
    assert windows.overlap(a, windows.corners(torch.tensor([4.0, 2.0, 2.0]))) == pytest.approx(1 / 3)
    assert windows.overlap(a, windows.corners(torch.tensor([9.0, 2.0, 2.0]))) == 0


def test_around_holds_the_box_and_stays_inside_the_image() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 80.0], [0.0, 0.0, 100.0, 10.0]])
    found = windows.corners(windows.around(boxes, 100))
    assert found[0].tolist() == [0, 20, 60, 80]
    assert found[1].tolist() == [0, 0, 100, 100]


def test_highest_response_is_found_with_x_along_columns() -> None:
    features = torch.zeros(1, 5, 10, 20)
    features[0, 2, 4, 14] = 3.0
    assert windows.highest_response(features)[0, 0].tolist() == pytest.approx([14.5 / 20, 4.5 / 10, 0.25])


def test_highest_response_moves_the_window_inside() -> None:
    features = torch.zeros(1, 1, 8, 8)
    features[0, 0, 0, 7] = 1.0
    assert windows.highest_response(features)[0, 0].tolist() == [0.75, 0.25, 0.25]


def test_further_responses_lie_elsewhere() -> None:
    features = torch.zeros(1, 1, 16, 16)
    features[0, 0, 2, 2], features[0, 0, 3, 3], features[0, 0, 13, 13] = 3.0, 2.0, 1.0
    first, second = windows.highest_response(features, 2)[0]
    assert first.tolist() == [0.25, 0.25, 0.25]
    assert second.tolist() == [0.75, 0.75, 0.25]


def test_moved_windows_keep_to_their_bounds() -> None:
    bounds = Bounds(1 / 3, 0.8)
    generator = torch.Generator().manual_seed(0)
    window = windows.bounded(torch.randn((500, 3), generator=generator), bounds)
    amount = 2 * torch.rand((500, 3), generator=generator) - 1
    moved = windows.moved(window, amount, bounds)
    assert (windows.corners(moved) >= -1e-6).all()
    assert (windows.corners(moved) <= 1 + 1e-6).all()
    lower, upper = bounds.relative()
    assert moved[:, 2].min() >= lower
    assert moved[:, 2].max() <= upper
    assert torch.equal(windows.moved(window, torch.zeros(3), bounds), window)
    small = torch.tensor([0.5, 0.4, 0.2])
    by = windows.moved(small, torch.tensor([0.5, -0.25, 0.0]), bounds)
    torch.testing.assert_close(by, torch.tensor([0.6, 0.35, 0.2]))
