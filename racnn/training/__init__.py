# SPDX-License-Identifier: BSD-3-Clause
"""Training: phases and who learns in them, the loop, checkpoints, several processes."""
