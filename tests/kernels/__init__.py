# SPDX-License-Identifier: BSD-3-Clause
"""The CPU kernels without torch; run_kernels.cpp and run_conversions.cpp are the programs."""
