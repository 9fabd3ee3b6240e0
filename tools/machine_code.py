# SPDX-License-Identifier: BSD-3-Clause
"""The machine code of CUDA kernels (compute capability 7.0 on), as cuobjdump prints it, and counts in it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# After these others may have run in between, or the instruction before was another.
_JUMPS = ("BRA", "BRX", "JMP", "CALL", "RET", "EXIT", "BSYNC", "BREAK", "WARPSYNC")
_INSTRUCTION = re.compile(
    r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?(.+?)\s*;"  # address, predicate, text
    r"\s*/\* 0x([0-9a-f]{8})[0-9a-f]{8} \*/\s*/\* 0x([0-9a-f]{16}) \*/"
)


@dataclass(frozen=True)
class Instruction:
    address: int
    text: str  # without its predicate
    control: int  # the scheduler's bits
    predicate: str = ""  # P0, !P0, ...; none: always
    immediate: int = 0  # the 32 bits in which most instructions have a number, if they have one

    @property
    def operation(self) -> str:
        return self.text.split(maxsplit=1)[0]

    @property
    def is_jump(self) -> bool:
        return self.operation.split(".")[0] in _JUMPS

    @property
    def target(self) -> int | None:
        """Where a branch leads, or where the threads meet again that BSSY lets diverge."""
        found = re.match(r"(?:BRA|BSSY)\b.*\b0x([0-9a-f]+)\)?$", self.text)
        return int(found[1], 16) if found else None

    @property
    def sets(self) -> int:
        """The scoreboard that is set until the result is there; 7: none."""
        return self.control >> 5 & 7

    @property
    def stall(self) -> int:
        """Cycles until the next instruction of the warp."""
        return self.control & 15

    @property
    def sets_when_read(self) -> int:
        """The scoreboard that is set until its operands have been read; 7: none."""
        return self.control >> 8 & 7

    def waits_for(self, scoreboard: int) -> bool:
        return bool(self.control >> 11 + scoreboard & 1)


Code = list[Instruction]


def find_cuobjdump(nvcc: str) -> str | None:
    """The toolkit's, or the one that triton (a requirement of torch) brings."""
    triton = importlib.util.find_spec("triton")
    folders = [str(Path(nvcc).parent), os.environ.get("PATH", "")]
    if triton is not None and triton.origin is not None:
        folders.append(str(Path(triton.origin).parent / "backends" / "nvidia" / "bin"))
    return shutil.which("cuobjdump", path=os.pathsep.join(folders))


def disassemble(cuobjdump: str, cubin: Path) -> dict[str, Code]:
    command = [cuobjdump, "-sass", str(cubin)]
    return parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse(listing: str) -> dict[str, Code]:
    """Every function by its mangled name. Of an instruction's two words the second has the control bits."""
    functions: dict[str, Code] = {}
    for function in re.split(r"Function : ", listing)[1:]:
        instructions = _INSTRUCTION.findall(function)
        name = function.split(maxsplit=1)[0]
        functions[name] = [
            Instruction(int(address, 16), text, int(bits, 16) >> 41, predicate, int(number, 16))
            for address, predicate, text, number, bits in instructions
        ]
    return functions


def loads_in_flight(code: Code) -> int:
    """The most loads of global memory that a stretch without jumps issues before it waits for one of them."""
    targets = {instruction.target for instruction in code}
    most, waiting = 0, list[int]()
    for instruction in code:
        if instruction.is_jump or instruction.address in targets or any(map(instruction.waits_for, waiting)):
            waiting = []
        if instruction.operation.startswith("LDG"):
            waiting.append(instruction.sets)
            most = max(most, len(waiting))
    return most


def loops(code: Code) -> list[Code]:
    """From the target of each backward branch to the branch, the shortest first."""
    spans = [(i.target, i.address) for i in code if i.operation.startswith("BRA") and i.target is not None]
    found = [[i for i in code if begin <= i.address <= end] for begin, end in spans if begin < end]
    return sorted(found, key=len)


def busiest_loop(code: Code, executed: Sequence[float]) -> Code:
    """Of the loops that access global memory and hold no other such loop, the one with most executions.

    executed: of each instruction. Empty if there is no such loop.
    """
    times = {instruction.address: count for instruction, count in zip(code, executed, strict=True)}
    innermost: list[Code] = []
    for loop in loops(code):
        addresses = {i.address for i in loop}
        if any(i.operation.startswith(("LDG", "STG")) for i in loop) and not any(
            other[0].address in addresses for other in innermost
        ):
            innermost.append(loop)
    return max(innermost, key=lambda loop: sum(times[i.address] for i in loop), default=[])
