# SPDX-License-Identifier: BSD-3-Clause
"""Where the model learns to look: runs over seeds, gradients of windows, data where the truth is known."""
