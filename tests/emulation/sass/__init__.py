# SPDX-License-Identifier: BSD-3-Clause
"""Runs the machine code that nvcc made (compute capability 9.0) on numpy, to count what a warp executes."""
