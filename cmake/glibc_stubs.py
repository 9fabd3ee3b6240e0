# SPDX-License-Identifier: BSD-3-Clause
"""Libraries to link with so that the result runs with an older glibc than the one here.

A symbol's version in a shared object is the default one of the library that it was linked with. glibc keeps
all older versions of a function, so the libraries here say what the older glibc's were: the stubs hold every
symbol of them with the newest version that the older glibc has, as its default, and no code. Functions that
moved into libc.so.6 with glibc 2.34 are put back where they were.

    python glibc_stubs.py COMPILER VERSION FOLDER
"""

import re
import subprocess
import sys
from pathlib import Path

MERGED = (2, 34)
FORMER_HOMES = {
    "libdl.so.2": r"dl(?!_)\w+",
    "libpthread.so.0": r"(pthread|sem)_\w+",
    "librt.so.1": r"(shm|aio|mq|timer|lio)_\w+",
}


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def symbols(library: str) -> dict[str, dict[tuple[int, ...], str]]:
    """Name -> version -> kind, of what the library defines."""
    lines = subprocess.check_output(["readelf", "--dyn-syms", "--wide", library], text=True)
    found: dict[str, dict[tuple[int, ...], str]] = {}
    for line in lines.splitlines():
        cells = line.split()
        if len(cells) < 8 or cells[6] in ("UND", "ABS") or cells[3] not in ("FUNC", "IFUNC", "OBJECT"):
            continue
        if match := re.fullmatch(r"(\w+)@@?GLIBC_([\d.]+)", cells[7]):
            found.setdefault(match[1], {})[number(match[2])] = cells[3]
    return found


def home(name: str, versions: dict[tuple[int, ...], str], library: str) -> str:
    if library == "libc.so.6" and MERGED in versions:
        return next((old for old, names in FORMER_HOMES.items() if re.fullmatch(names, name)), library)
    return library


def write_stub(
    compiler: str, soname: str, members: dict[str, tuple[tuple[int, ...], str]], folder: Path
) -> None:
    lines = [".text"]
    for at, (name, (version, kind)) in enumerate(sorted(members.items())):
        dotted = ".".join(map(str, version))
        kind = "object" if kind == "OBJECT" else "function"
        lines += [f".globl stub_{at}", f".type stub_{at}, @{kind}", f"stub_{at}: .byte 0"]
        lines += [f".size stub_{at}, 1", f".symver stub_{at}, {name}@@GLIBC_{dotted}"]
    nodes = sorted({version for version, _ in members.values()})
    script = folder / f"{soname}.map"
    script.write_text(
        "".join(
            f"GLIBC_{'.'.join(map(str, v))} {{ {'local: stub_*;' if v == nodes[0] else ''} }};\n"
            for v in nodes
        )
    )
    source = folder / f"{soname}.s"
    source.write_text("\n".join(lines) + "\n")
    options = ["-shared", "-nostdlib", f"-Wl,-soname,{soname}", f"-Wl,--version-script,{script}"]
    subprocess.run([compiler, *options, "-o", folder / soname, source], check=True)


def main() -> None:
    compiler, wanted, folder = sys.argv[1], number(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    stubs: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {}
    for library in ("libc.so.6", "libm.so.6"):
        path = subprocess.check_output([compiler, f"-print-file-name={library}"], text=True).strip()
        for name, versions in symbols(path).items():
            if old := [version for version in versions if version <= wanted]:
                members = stubs.setdefault(home(name, versions, library), {})
                members[name] = max(old), versions[max(old)]
    for soname, members in stubs.items():
        write_stub(compiler, soname, members, folder)


if __name__ == "__main__":
    main()
