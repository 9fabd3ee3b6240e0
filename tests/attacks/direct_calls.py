# SPDX-License-Identifier: BSD-3-Clause
"""Hostile direct calls of the private operators, in a library built with AddressSanitizer and UBSan.

torch.ops.racnn_ops.* is private, but no call of it may touch memory outside its tensors, overflow, crash or
hang. An error is right, and so is an answer; an answer to finite arguments must be finite. Tensors end with
the last number that their strides reach, and new memory is full of NaN (the byte 255): what is not written
is seen.

The calls are made in a child process, under the sanitizers' runtimes; see attack.py for the options.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import attack
import torch
from hostile_calls import Case

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "sanitized"
CHILD = "RACNN_ATTACK_CALL"  # names the file where the child writes down each call before it makes it
# What takes longest to compile is left out: optimisation, and of UBSan's checks what AddressSanitizer finds
# where memory is touched.
FLAGS = (
    "-O0 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all "
    "-fno-sanitize=null,object-size,vptr,alignment,pointer-overflow"
)

MOST_MEMORY = 64  # megabytes of one block, in the child


def case(number: int) -> None:
    call = Case(number)
    if not call.is_affordable():
        return
    with Path(os.environ[CHILD]).open("w") as notes:
        notes.write(f"{number} {call}")
    signal.alarm(60)  # ends the process: no call may take so long
    torch.set_num_threads(1 + number // 64 % 3)
    call.make()
    signal.alarm(0)


# --- The parent: the build, the child, and how the child ended -------------------------------------------


def build() -> Path:
    sys.path.append(str(ROOT / "tests"))
    from emulation.build import cmake_build

    options = [f"-DRACNN_OUTPUT_DIR={BUILD / 'library'}", "-DRACNN_CUDA=off", "-DCMAKE_BUILD_TYPE=Sanitized"]
    cmake_build(ROOT, BUILD, *options, f"-DCMAKE_CXX_FLAGS_SANITIZED={FLAGS}", target="racnn_ops")
    return BUILD / "library" / "libracnn_ops.so"


def run_child(arguments: list[str]) -> int:
    from emulation.build import runtime

    notes = BUILD / f"call-{os.getpid()}"
    notes.write_text("")
    environment = {
        **os.environ,
        CHILD: str(notes),
        "LD_PRELOAD": ":".join(runtime(BUILD, name) for name in ("libasan.so", "libstdc++.so")),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_malloc_fill_size=1000000000"
        f":malloc_fill_byte=255:max_allocation_size_mb={MOST_MEMORY}",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, *arguments]
    child = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    number, _, call = notes.read_text().partition(" ")
    notes.unlink()
    if child.returncode != 0:
        report = re.search(
            r"^.*(runtime error:|ERROR: AddressSanitizer)(.*\n){,12}", child.stderr, re.MULTILINE
        )
        lines = (report[0] if report else child.stderr[-4000:]).splitlines()
        how = f"the process ended with status {child.returncode} in this call:"
        attack.tell(int(number or -1), [*(line[:200] for line in lines), how, f"torch.ops.racnn_ops.{call}"])
    return int(child.returncode != 0)


def main() -> int:
    options = attack.parser(__doc__).parse_args()
    if CHILD in os.environ:
        library = BUILD / "library" / "libracnn_ops.so"
        torch.ops.load_library(library)
        capability = ctypes.CDLL(str(library)).racnn_cpu_capability
        capability.restype = ctypes.c_char_p
        print(f"with {capability().decode()} kernels", flush=True)
        return attack.run(options, case)
    build()
    return run_child(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
