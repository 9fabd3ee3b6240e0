# SPDX-License-Identifier: BSD-3-Clause
"""An AOTInductor package with a crop inside, run from C++: the example in cpp/aot_inductor."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from programs import configure, run_checked
from samples import relative_error

import racnn_ops

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests/build/cpp/aot_inductor"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ program, with the C++ package installed from the libraries that are tested here."""
    folder = tmp_path_factory.mktemp("aot_inductor")
    libraries, prefix = folder / "libraries", folder / "prefix"
    shutil.copytree(
        Path(racnn_ops.__file__).parent,
        libraries,
        ignore=lambda _, names: {name for name in names if not name.endswith(".so")},
    )
    configured = configure(ROOT, folder / "package", f"-DRACNN_OUTPUT_DIR={libraries}", RACNN_CUDA="off")
    assert configured.returncode == 0, configured.stdout
    run_checked("cmake", "--install", folder / "package", "--prefix", prefix)
    configured = configure(EXAMPLE, folder / "example", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert configured.returncode == 0, configured.stdout
    run_checked("cmake", "--build", folder / "example")
    return folder / "example/run_package"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "zoom.pt2"
    run_checked(sys.executable, EXAMPLE / "export_package.py", path)
    return path


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_cpp_gives_the_numbers_of_eager(program: Path, package: Path, batch: int) -> None:
    numbers = torch.tensor([float(word) for word in run_checked(program, package, str(batch)).split()])
    pattern = (torch.arange(batch * 3 * 24 * 32) * 7919 % 251).to(torch.uint8).view(batch, 3, 24, 32)
    model = runpy.run_path(str(EXAMPLE / "export_package.py"))["make_model"]()
    with torch.no_grad():
        crops, windows = model(pattern)
    assert crops.std() > 0.1
    assert relative_error(numbers, torch.cat((crops.flatten(), windows.flatten()))) <= 1e-4
