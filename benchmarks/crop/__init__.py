# SPDX-License-Identifier: BSD-3-Clause
"""The operator against what people use instead: who takes part, on what, how it is checked and timed."""
