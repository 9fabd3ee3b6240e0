# SPDX-License-Identifier: BSD-3-Clause
"""Each detector finds the fault that was planted for it, and finds nothing in the fault's right twin."""

from __future__ import annotations

from types import ModuleType

import pytest

from .build import python

OVERFLOW = "AddressSanitizer: heap-buffer-overflow"
RACE = "ThreadSanitizer: data race"
POISON = "poison in output element"
ABSENT = "returned while others wait for it in __shfl_xor_sync with mask 0xffffffff"

# (fault, build, what that build reports)
FAULTS = [
    ("off_by_one_read", "address", OVERFLOW),
    ("off_by_one_shared_write", "address", OVERFLOW),
    ("off_by_one_static_shared_write", "address", "index 64 out of bounds for type 'float [64]'"),
    ("pointer_past_static_shared", "address", "AddressSanitizer: global-buffer-overflow"),
    ("missing_barrier", "none", POISON),
    ("missing_barrier", "thread", RACE),
    ("missing_second_barrier", "thread", RACE),
    ("shuffle_instead_of_barrier", "thread", RACE),
    ("blocks_write_one_element", "thread", RACE),
    ("divergent_barrier", "none", "divergent barrier: other threads are in __syncthreads"),
    ("divergent_barrier", "thread", "divergent barrier: other threads are in __syncthreads"),
    ("unreached_barrier", "none", "divergent barrier: 40 threads wait in __syncthreads"),
    ("unreached_barrier", "thread", "divergent barrier: 40 threads wait in __syncthreads"),
    ("mask_without_caller", "none", "the calling lane is not in the mask"),
    ("mask_of_absent_lanes", "none", ABSENT),
    ("mask_of_absent_lanes", "thread", ABSENT),
    ("different_masks", "none", "other lanes of the mask are in __shfl_xor_sync with mask 0xffffffff"),
    ("different_functions", "none", "other lanes of the mask are in a vote"),
    ("shuffle_from_absent_lane", "none", POISON),
    ("shuffle_of_odd_width", "none", "the width of a shuffle must be a power of two"),
    ("unwritten_output", "none", POISON),
    ("unwritten_shared", "none", POISON),
    ("unwritten_static_shared", "none", POISON),
    ("misaligned_load", "address", "misaligned address"),
    ("misaligned_ldg", "none", "misaligned load"),
    ("misaligned_store", "address", "misaligned address"),
    ("signed_overflow", "address", "signed integer overflow"),
]
NOT_IN_THREAD_BUILD = {
    "off_by_one_static_shared_write",
    "pointer_past_static_shared",
    "unwritten_static_shared",
}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "sanitizer", "report"), FAULTS)
def test_planted_fault_is_found(fault: str, sanitizer: str, report: str) -> None:
    result = python(sanitizer, "-m", "emulation.run_planted_fault", "faulty", fault)
    assert result.returncode != 0
    assert report in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["none", "address", "thread"])
def test_fixed_twins_pass(sanitizer: str, planted_faults: ModuleType) -> None:
    names = sorted({fault for fault, *_ in FAULTS})
    assert names == sorted(planted_faults.NAMES)
    if sanitizer == "thread":
        names = [name for name in names if name not in NOT_IN_THREAD_BUILD]
    result = python(sanitizer, "-m", "emulation.run_planted_fault", "fixed", *names)
    assert result.returncode == 0, result.stderr
    assert "nothing found" in result.stdout


INVALID = 9  # cudaErrorInvalidConfiguration


@pytest.mark.parametrize(
    ("grid", "block", "shared_bytes", "error"),
    [
        ((1, 1, 1), (1024, 1, 1), 48 << 10, 0),
        ((1, 3, 2), (2, 2, 64), 0, 0),
        ((1, 1, 1), (1025, 1, 1), 0, INVALID),
        ((1, 1, 1), (32, 33, 1), 0, INVALID),
        ((1, 1, 1), (1, 1, 65), 0, INVALID),
        ((1, 1, 1), (0, 1, 1), 0, INVALID),
        ((0, 1, 1), (32, 1, 1), 0, INVALID),
        ((1 << 31, 1, 1), (32, 1, 1), 0, INVALID),
        ((1, 65536, 1), (32, 1, 1), 0, INVALID),
        ((1, 1, 65536), (32, 1, 1), 0, INVALID),
        ((1, 1, 1), (32, 1, 1), (48 << 10) + 1, INVALID),
    ],
)
def test_launch_limits_are_those_of_a_gpu(
    planted_faults: ModuleType,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    shared_bytes: int,
    error: int,
) -> None:
    assert planted_faults.launch_empty(grid, block, shared_bytes) == error
