# SPDX-License-Identifier: BSD-3-Clause
"""A folder that Hugging Face's package ``kernels`` loads, made of a wheel.

    python tools/hub.py dist/audited/racnn_ops-....whl --output build/hub

``kernels.get_local_kernel(Path("build/hub"))`` then gives the module ``racnn_ops``, and ``get_kernel`` does
once the folder is a repository of kernels. Each variant is the package with its library under a name of its
own, the namespace of its operators: it lives beside an installed racnn_ops and other builds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

NAME, LIBRARY = "racnn-ops", "libracnn_ops.so"
CUDA_LIBRARY = "libracnn_ops_cuda.so"
STABLE_ABI = "210"  # torch 2.10 and later

BUILD = """\
# What the variants in build/ are. They come out of a wheel, which CMake builds for glibc 2.28 and later;
# kernel-builder is not needed.
[general]
name = "{name}"
version = {version}
license = "BSD-3-Clause"
backends = [{backends}]

[torch]
stable-abi = "2.10"
"""

CARD = """\
---
library_name: kernels
license: bsd-3-clause
---

# racnn-ops {release}

Cut a window out of an image and zoom it, differentiably in the image and in the window, fused:
`attention_crop`, `paste`, `transforms.RandomResizedCrop`, for CPU and CUDA, torch 2.10 and later.

```python
import torch
from kernels import get_kernel

racnn_ops = get_kernel("<organisation>/{name}", version={version})
images = torch.rand(8, 3, 448, 448)
windows = torch.tensor([[224.0, 200.0, 96.0]] * 8, requires_grad=True)  # centre, half side in pixels
crops = racnn_ops.attention_crop(images, windows, 224)  # (8, 3, 224, 224)
```

| variant | operators |
|---|---|
{variants}
"""


def capabilities(description: str) -> tuple[str, list[str]]:
    """``"130", ["9.0"]`` of ``"CUDA 13.0.88 (static runtime), sm_90"``."""
    version = re.match(r"CUDA (\d+)\.(\d+)", description)
    if version is None:
        raise SystemExit(f"the wheel's CUDA library says of itself: {description!r}")
    numbers = sorted({int(n) for n in re.findall(r"(?:sm|compute)_(\d+)", description)})
    return f"{version[1]}{version[2]}", [f"{n // 10}.{n % 10}" for n in numbers]


def described(library: Path) -> str:
    """What ``racnn_cuda_build`` answers, read without loading it: torch may not be here."""
    found = re.search(rb"CUDA \d+\.\d+[^\0]*", library.read_bytes())
    if found is None:
        raise SystemExit(f"{library.name} does not say what CUDA it was built with")
    return found[0].decode()


def fill(package: Path, variant: Path, backend: dict[str, object], version: int) -> str:
    """Copy the package into a variant's folder. Returns the namespace of its operators."""
    libraries = [LIBRARY] + [CUDA_LIBRARY] * (backend["type"] == "cuda")
    files = sorted(file for file in package.rglob("*") if file.is_file() and file.suffix != ".so")
    digest = hashlib.sha256()
    for file in [*files, *(package / name for name in libraries)]:
        digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    namespace = f"racnn_ops_{digest.hexdigest()[:10]}"
    for file in files:
        target = variant / file.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    for name in libraries:
        shutil.copyfile(package / name, variant / name.replace("racnn_ops", namespace))
    metadata = {
        "name": NAME,
        "id": f"_{namespace}",
        "version": version,
        "license": "BSD-3-Clause",
        "python-depends": [],
        "backend": backend,
    }
    (variant / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    return namespace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--version", type=int, default=1, help="of the interface, a whole number")
    arguments = parser.parse_args()
    found = re.fullmatch(
        r"racnn_ops-([^-]+)-py3-none-manylinux[\w.]*_(x86_64|aarch64)\.whl", arguments.wheel.name
    )
    if found is None or not arguments.wheel.is_file():
        parser.error(f"wheel must be a file that `make wheel` made, got {str(arguments.wheel)!r}")
    if arguments.output.exists():
        parser.error(f"--output must be a new folder, got {str(arguments.output)!r}")
    release, machine = found.groups()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    namespaces = {}
    with tempfile.TemporaryDirectory(dir=arguments.output.parent) as scratch:
        with zipfile.ZipFile(arguments.wheel) as archive:
            archive.extractall(scratch)
        package, hub = Path(scratch, "racnn_ops"), Path(scratch, "hub")
        backends: dict[str, dict[str, object]] = {"cpu": {"type": "cpu"}}
        if (package / CUDA_LIBRARY).is_file():
            number, archs = capabilities(described(package / LIBRARY))
            backends[f"cu{number}"] = {"type": "cuda", "archs": archs}
        for title, backend in backends.items():
            variant = f"torch-stable-abi{STABLE_ABI}-{title}-{machine}-linux"
            namespaces[variant] = fill(package, hub / "build" / variant, backend, arguments.version)
        texts = {
            "name": NAME,
            "release": release,
            "version": arguments.version,
            "backends": ", ".join(f'"{backend["type"]}"' for backend in backends.values()),
            "variants": "\n".join(f"| `{v}` | `torch.ops.{name}` |" for v, name in namespaces.items()),
        }
        (hub / "build.toml").write_text(BUILD.format(**texts), encoding="utf-8")
        (hub / "CARD.md").write_text(CARD.format(**texts), encoding="utf-8")
        shutil.copytree(hub, arguments.output)
    print("\n".join(f"{arguments.output / 'build' / variant}" for variant in namespaces))


if __name__ == "__main__":
    main()
