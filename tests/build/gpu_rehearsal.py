# SPDX-License-Identifier: BSD-3-Clause
"""Stand-ins for a GPU's programs and for the steps of tools/check_gpu.py."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import check_gpu
import gpu_steps
import pytest
from gpu_steps import Part, Step

HERE = {"device": "cuda", "name": "NVIDIA Stand-in", "driver": "580.1", "torch": "2.11.0"}
PROVENANCE = {"commit": "c0ffee", "date": "2030-01-02"}
TIMINGS = ["headline", "counters", "benchmark 1", "benchmark 2", "benchmark 3"]

NVIDIA_SMI = "echo 'NVIDIA Stand-in, 580.1'"
SANITIZER = """echo "$@"; echo '3 passed in 0.01s'"""
FORWARD = "void racnn::contraction_kernel<true, P>(P)"
LAUNCHES = [  # of the same kernel twice
    ("0", "dram__bytes.sum", "1"),
    ("1", "dram__bytes.sum", "77,000,000"),
    ("1", "gpu__time_duration.sum", "35000"),
    ("1", "launch__waves_per_multiprocessor", "n/a"),
]
COUNTED = ['"ID","Process ID","Kernel Name","Grid Size","Metric Name","Metric Unit","Metric Value"']
COUNTED += [f'"{n}","7","{FORWARD}","(9, 1, 1)","{metric}","","{value}"' for n, metric, value in LAUNCHES]
# Writes into what its option --log-file names.
NCU = f"""
while [ "$1" != --log-file ]; do shift; done
cat > "$2" <<END
==PROF== Profiling "contraction_kernel" - 0: 0%....100% - 1 pass
{chr(10).join(COUNTED)}
END
"""


def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stand-ins for NVIDIA's programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (("nvidia-smi", NVIDIA_SMI), ("ncu", NCU), ("compute-sanitizer", SANITIZER)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def planted(output: Path, **commands: str) -> list[Step]:
    """All steps with their names and needs, whose parts note their own name; ``commands`` do other things."""
    noted = output / "noted"

    def part(step: str, part: Part) -> Part:
        script = commands.get(step, "true")
        return Part(part.name, ["sh", "-c", f'echo "{part.name}" >> "{noted}"; {script}'])

    return [
        replace(step, parts=[part(step.name, one) for one in step.parts], always=False)
        for step in gpu_steps.all_steps("cuda", output)
    ]


def run(output: Path, steps: list[Step], *chosen: str, **options: Any) -> tuple[int, list[str]]:
    """The exit status, and the parts that were run."""
    noted = output / "noted"
    noted.unlink(missing_ok=True)
    checked = check_gpu.Check(output, HERE, PROVENANCE, options.pop("limit", 60))
    status = checked.run(steps, chosen, **options)
    return status, noted.read_text().splitlines() if noted.exists() else []


def results(output: Path) -> dict[str, Any]:
    return json.loads((output / "check_gpu.json").read_text())["parts"]  # type: ignore[no-any-return]
