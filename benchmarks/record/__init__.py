# SPDX-License-Identifier: BSD-3-Clause
"""What a program leaves behind: a report with its provenance as JSON, Markdown and picture."""
