# SPDX-License-Identifier: BSD-3-Clause
"""The notebooks run from top to bottom, in a kernel of this Python."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "benchmarks/notebooks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    kernelspec = pytest.importorskip("ipykernel.kernelspec")
    # Nothing of the user's: neither a kernel of another Python nor settings.
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    kernelspec.write_kernel_spec(tmp_path / "kernels/here")
    notebook = jupytext.read(source)
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="here", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()  # CellExecutionError tells which cell failed, and why

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(cell.execution_count for cell in cells)
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    figures = sum("plt.subplots" in cell.source for cell in cells)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == figures > 0
