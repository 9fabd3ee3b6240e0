# SPDX-License-Identifier: BSD-3-Clause
"""Registers, shared memory, spills and loads in flight of every CUDA kernel, against a committed table.

``python tools/kernel_resources.py`` compiles csrc/torch/cuda.cu for two architectures (no GPU is needed) and
fails if a kernel spills, uses local memory, has more registers than the table, or fewer loads of global
memory in flight at a time (machine_code.py); ``--update`` rewrites that. Registers and loads are compared
only with the nvcc release that the table was made with: each chooses its own. Loads need cuobjdump.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine_code
from machine_code import Code

ARCHITECTURES = ("sm_80", "sm_90")

_ROOT = Path(__file__).resolve().parents[1]
_TABLE = _ROOT / "tests" / "emulation" / "kernel_resources.json"


@dataclass(frozen=True)
class Resources:
    registers: int
    shared: int  # static shared memory, bytes
    stack: int  # local memory, bytes
    spills: int  # stores and loads, bytes
    code: Code = field(default_factory=list, repr=False)  # empty without cuobjdump

    @property
    def loads(self) -> int | None:
        """Loads of global memory in flight at a time."""
        return machine_code.loads_in_flight(self.code) if self.code else None


Kernels = dict[str, Resources]


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc", path=f"{home}/bin") or shutil.which("nvcc")


def nvcc_release(nvcc: str) -> str:
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release ([\d.]+)", version)
    assert found is not None, version
    return found[1]


def compile_kernels(nvcc: str, architecture: str) -> Kernels:
    """What ptxas says of all kernels that csrc/torch/cuda.cu includes."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    options = ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    options += ["-I", str(Path(torch.origin).parent / "include")]
    try:
        kernels = compile_source(nvcc, _ROOT / "csrc" / "torch" / "cuda.cu", architecture, *options)
    except RuntimeError as error:
        sys.exit(str(error))
    return by_readable_name(kernels)


def compile_source(nvcc: str, source: Path, architecture: str, *options: str) -> Kernels:
    """The kernels of a file, by mangled name; raises RuntimeError if it does not compile."""
    cuobjdump = machine_code.find_cuobjdump(nvcc)
    command = [nvcc, "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-cubin", f"-arch={architecture}"]
    command += ["-Xptxas", "-v", *options]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command += [str(source), "-o", str(cubin)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{source.name} does not compile for {architecture}:\n{result.stderr}")
        return parse_mangled(result.stderr, machine_code.disassemble(cuobjdump, cubin) if cuobjdump else {})


def compile_all(nvcc: str) -> dict[str, Kernels]:
    with ThreadPoolExecutor(len(ARCHITECTURES)) as pool:
        kernels = pool.map(lambda architecture: compile_kernels(nvcc, architecture), ARCHITECTURES)
        return dict(zip(ARCHITECTURES, kernels, strict=True))


def parse(report: str, code: dict[str, Code]) -> Kernels:
    """The kernels in the output of ``ptxas -v``, by readable name; `code` is by mangled name."""
    return by_readable_name(parse_mangled(report, code))


def by_readable_name(kernels: Kernels) -> Kernels:
    readable = demangle(list(kernels))
    return dict(sorted((readable[name], resources) for name, resources in kernels.items()))


def parse_mangled(report: str, code: dict[str, Code]) -> Kernels:
    kernels: dict[str, Resources] = {}
    for block in re.split(r"Compiling entry function ", report)[1:]:
        name = re.match(r"'(\w+)'", block)
        # Device functions that were not inlined have properties of the same form: take the kernel's own.
        properties = name and re.search(rf"Function properties for {name[1]}\n(.*)\n", block)
        used = re.search(r"Used (\d+) registers", block)
        assert name, block
        assert properties, block
        assert used, block
        stack, *spills = (int(number) for number in re.findall(r"(\d+) bytes", properties[1]))
        shared = re.search(r"(\d+) bytes smem", block)
        kernels[name[1]] = Resources(
            int(used[1]), int(shared[1]) if shared else 0, stack, sum(spills), code.get(name[1], [])
        )
    return kernels


def demangle(names: list[str]) -> dict[str, str]:
    """``forward_kernel<float, __half, true>``: no return type, no parameters, no namespace."""
    output = (
        subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True).stdout
        if names
        else ""
    )
    readable = {}
    for name, line in zip(names, output.splitlines(), strict=True):
        depth, end = 0, len(line)
        for i, character in enumerate(line):
            depth += {"<": 1, ">": -1}.get(character, 0)
            if character == "(" and depth == 0:
                end = i
                break
        readable[name] = line[:end].removeprefix("void ").replace("racnn::", "")
    return readable


def write_table(release: str, measured: dict[str, Kernels]) -> None:
    """A line for each kernel."""
    parts = [f'"nvcc": "{release}"']
    for architecture, kernels in measured.items():
        rows = []
        for name, now in kernels.items():
            numbers = {"registers": now.registers, "shared": now.shared, "loads": now.loads}
            rows.append(f'  "{name}": {json.dumps(numbers)}')
        parts.append(f'"{architecture}": {{\n' + ",\n".join(rows) + "\n}")
    _TABLE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def read_table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text())
    return table


def problems(
    architecture: str, kernels: Kernels, table: dict[str, dict[str, int]], same_nvcc: bool
) -> list[str]:
    found = []
    for name, now in kernels.items():
        at = f"{architecture} {name}"
        if now.spills:
            found.append(f"{at}: spills {now.spills} bytes")
        if now.stack:
            found.append(f"{at}: {now.stack} bytes of local memory")
        if name not in table:
            found.append(f"{at}: not in the table")
            continue
        registers, shared = table[name]["registers"], table[name]["shared"]
        if now.shared > shared:
            found.append(f"{at}: {now.shared} bytes of static shared memory, {shared} in the table")
        if same_nvcc and now.registers > registers:
            found.append(f"{at}: {now.registers} registers, {registers} in the table")
        if same_nvcc and now.loads is not None and now.loads < table[name]["loads"]:
            found.append(f"{at}: {now.loads} loads in flight, {table[name]['loads']} in the table")
    found += [
        f"{architecture} {name}: in the table, but there is no such kernel" for name in table.keys() - kernels
    ]
    return found


def all_problems(measured: dict[str, Kernels], release: str) -> list[str]:
    table = read_table()
    found = []
    for architecture, kernels in measured.items():
        found += problems(architecture, kernels, table[architecture], table["nvcc"] == release)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the table")
    parser.add_argument("--show", action="store_true", help="print every kernel")
    arguments = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        sys.exit("no nvcc was found: set CUDA_HOME")
    release = nvcc_release(nvcc)
    measured = compile_all(nvcc)
    if arguments.show:
        for architecture, kernels in measured.items():
            for name, resources in kernels.items():
                print(architecture, name, resources, f"loads={resources.loads}")
    if arguments.update:
        if machine_code.find_cuobjdump(nvcc) is None:
            sys.exit("no cuobjdump was found: it is beside nvcc or comes with triton")
        write_table(release, measured)
    found = all_problems(measured, release)
    if found:
        sys.exit("\n".join(found))
    print(f"{sum(map(len, measured.values()))} kernels: nothing spills, none has grown")


if __name__ == "__main__":
    main()
