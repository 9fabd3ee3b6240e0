# SPDX-License-Identifier: BSD-3-Clause
"""The CUDA kernels on the CPU; see README.md."""
