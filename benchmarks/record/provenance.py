# SPDX-License-Identifier: BSD-3-Clause
"""When, where, of what and by which command a result was made."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")

# glibc's malloc gives large blocks back to the system when they are freed, and whoever allocates next pays a
# page fault every 4 KiB: more time than some contestants' kernels take, and a matter of who comes after whom.
# A training loop settles on its memory; so does the benchmark, for all contestants alike.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**28)}


def keep_memory() -> None:
    """Start this program again with a malloc that keeps what is freed; it reads its settings at the start."""
    if all(os.environ.get(name) == value for name, value in KEEP_MEMORY.items()):
        return
    if sys.platform == "linux":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)


def describe(device: torch.device = CPU) -> dict[str, Any]:
    """The facts that begin every report; to be called before a run, during which files may change."""
    return {
        "command": command(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": commit(),
        "machine": machine(device),
        "versions": versions(),
    }


def sentence(report: dict[str, Any], name: str) -> str:
    """Those facts for the reader of a section; ``name`` is that of its JSON file, which lies beside it."""
    machine = report.get("machine", report)  # the first reports of the model have "cpu" and "threads" alone
    facts = [machine.get("device", machine.get("cpu"))]
    if "threads" in machine and not is_gpu(machine):
        facts += [
            report.get("versions", {}).get("cpu_capability"),
            f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}",
        ]
    if "versions" in report:
        facts.append(f"torch {report['versions']['torch']}")
    git = report["git"]
    facts += [report["date"][:10], f"commit `{(git['commit'] or 'unknown')[:10]}`"]
    if git["changed"]:
        facts.append("with changes")
    return (
        f"{', '.join(filter(None, facts))}. Made by `{report['command']}`; "
        f"everything measured: [{name}.json]({name}.json)."
    )


def command() -> str:
    """How the program was called, except where to write."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output")
    _, others = parser.parse_known_args(sys.argv[1:])
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *others])


def commit() -> dict[str, Any]:
    """The checked-out commit, and whether files that it tracks were changed."""
    changes = _output("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _output("git", "rev-parse", "HEAD"),
        "changed": None if changes is None else changes != "",
    }


def machine(device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "device": device_name(device),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_before": os.getloadavg()[0],
        "system": platform.platform(),
        "malloc": {name: os.environ.get(name) for name in KEEP_MEMORY},
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        facts |= {
            "multiprocessors": gpu.multi_processor_count,
            "l2_bytes": gpu.L2_cache_size,
            "memory_bytes": gpu.total_memory,
            "driver": _output("nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    return facts


def versions() -> dict[str, str | None]:
    packages = ("racnn-ops", "torch", "torchvision", "kornia", "opencv-python-headless", "pillow")
    packages += ("numpy", "scikit-image")
    found = {package: _version(package) for package in packages}
    found |= {"python": platform.python_version(), "cuda": torch.version.cuda}
    from racnn_ops import _library

    if not _library.has_cpu:  # the reference answers
        return found | {"build": None, "cpu_capability": None}
    return found | {"build": _library.fact("build_info"), "cpu_capability": _library.fact("cpu_capability")}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def slug(report: dict[str, Any]) -> str:
    """For file names: the processor and, of a CPU, the instruction set that the kernels used.

    ``cpu-amd-epyc-avx512``, ``cuda-nvidia-h100-80gb-hbm3``.
    """
    words = [report["machine"]["device"]]
    if not is_gpu(report["machine"]):
        words.append(report["versions"]["cpu_capability"] or "reference")
    name = re.sub(r"\((?:r|tm)\)", "", " ".join(words).lower())
    kind = "cuda" if is_gpu(report["machine"]) else "cpu"
    return f"{kind}-" + re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def is_gpu(machine: dict[str, Any]) -> bool:
    return "multiprocessors" in machine


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
