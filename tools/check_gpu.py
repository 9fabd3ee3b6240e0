# SPDX-License-Identifier: BSD-3-Clause
"""On a machine with an NVIDIA GPU, everything that needs one: is it right, how fast, and does it stay right.

    python tools/check_gpu.py [STEP …]

Needs no network. Goes on where an earlier call stopped: what has succeeded is done again only when a file
that it reads, the GPU, the driver or torch has changed. A part stops at its time limit. What a step needs
comes first; where that fails, the step is not done. After each part the results so far are in FOLDER, as JSON
and as Markdown for a README; logs are below FOLDER/parts. Ends with status 1 if a step failed.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import gpu_report
from gpu_steps import ROOT, Part, Step, all_steps, folder_of

Record = dict[str, Any]
OUTPUT = ROOT / "build" / "check_gpu"


def machine(device: str) -> dict[str, str | None]:
    """What every result depends on, and is thrown away with."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        name, driver = answer.strip().rsplit(", ", 1)
    except (OSError, subprocess.CalledProcessError, ValueError):
        name, driver = None, None
    return {"device": device, "name": name, "driver": driver, "torch": version("torch")}


def commit() -> str | None:
    """The checked-out commit, "-dirty" where tracked files were changed."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def fingerprint(part: Part, here: Record) -> str:
    """Of everything that its result depends on."""
    digest = hashlib.sha256(json.dumps([list(part.command), dict(part.env), here]).encode())
    for path in sorted(_code([ROOT / "racnn_ops", *part.inputs])):
        digest.update(f"{path}\0{_digest(path, path.stat().st_mtime_ns)}".encode())
    return digest.hexdigest()


def _code(paths: Iterable[Path]) -> set[Path]:
    inside = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")))
    return {file for file in inside if file.suffix in (".py", ".so")}


@cache
def _digest(path: Path, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Check:
    """A run of steps, and the results of this run and those before it.

    Args:
        output: the folder of results and logs.
        here: what :func:`machine` says.
        provenance: what the results also say of themselves, such as the commit.
        limit: seconds for a part; a step may have less.
    """

    def __init__(self, output: Path, here: Record, provenance: Record, limit: float) -> None:
        self.output = output
        self.here = here
        self.limit = limit
        self.path = output / "check_gpu.json"
        try:
            self.done: Record = json.loads(self.path.read_text(encoding="utf-8"))["parts"]
        except (OSError, ValueError, KeyError):
            self.done = {}
        self.provenance = provenance

    def run(self, steps: Sequence[Step], chosen: Sequence[str] = (), again: bool = False) -> int:
        """The chosen steps (default: all) and what they need; the exit status. ``again``: the chosen anew."""
        by_name = {step.name: step for step in steps}
        wanted = set(chosen or by_name)
        while more := {name for step in wanted for name in by_name[step].needs} - wanted:
            wanted |= more
        results: dict[str, str] = {}
        keys = self._keys(steps)
        for step in steps:
            if step.name in wanted:
                anew = step.always or (again and step.name in (chosen or by_name))
                unmet = next((f"{name}: {results[name]}" for name in step.needs if results[name] != "ok"), "")
                results[step.name] = self._step(step, keys, unmet, anew)
                if step.always:  # it may have built the library, on which all others depend
                    keys = self._keys(steps)
        return int("failed" in results.values())

    def _keys(self, steps: Sequence[Step]) -> dict[str, str]:
        """Of all parts. Forgets what was done with other inputs, or whose results are not here any more."""
        keys = {}
        for step in steps:
            for part in step.parts:
                keys[part.name] = "" if step.always else fingerprint(part, self.here)
                if self.done.get(part.name, {}).get("result") == "ok" and self._lacks_results(part):
                    del self.done[part.name]
        self.done = {name: part for name, part in self.done.items() if part["key"] == keys.get(name)}
        return keys

    def _lacks_results(self, part: Part) -> bool:
        return part.makes != "" and not any(folder_of(part.name, self.output).glob(part.makes))

    def _step(self, step: Step, keys: dict[str, str], unmet: str, anew: bool) -> str:
        found = set()
        for part in step.parts:
            before = self.done.get(part.name, {})
            if unmet:
                record = {"result": "not run", "reason": unmet}
            elif before.get("result") == "ok" and not anew:
                record = before
            elif step.missing:
                record = {"result": "skipped", "reason": step.missing}
            else:
                print(f"== {part.name}", flush=True)
                record = self._part(part, min(step.limit, self.limit))
            told = "done before" if record is before else record["reason"]
            print(f"   {part.name}: {record['result']} {told}".rstrip(), flush=True)
            self.done[part.name] = {**record, "step": step.name, "key": keys[part.name]}
            self.done = {name: self.done[name] for name in keys if name in self.done}  # in order
            self._write()
            found.add(record["result"])
        return next(result for result in ("failed", "not run", "skipped", "ok") if result in found)

    def _part(self, part: Part, limit: float) -> Record:
        folder = folder_of(part.name, self.output)
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "log.txt"
        start = time.monotonic()
        with log.open("w") as file:
            status = run_within(limit, part.command, part.env, file)
        text = log.read_text(errors="replace")
        record: Record = {"result": "ok", "reason": "", "seconds": round(time.monotonic() - start, 1)}
        record["log"] = log.relative_to(self.output).as_posix()
        record["left_out"] = re.findall(r"^SKIPPED .*", text, flags=re.MULTILINE)
        refusal = next(
            (line for line in text.splitlines() if any(word in line for word in part.refusals)), ""
        )
        if status is None:
            record |= {"result": "failed", "reason": f"stopped after {limit:g} s"}
        elif status and refusal:
            record |= {"result": "skipped", "reason": refusal.strip("= ")}
        elif status:
            record |= {"result": "failed", "reason": f"exit status {status}"}
        elif part.is_test and not re.search(r"^\d+ passed|, \d+ passed", text, flags=re.MULTILINE):
            record |= {"result": "failed", "reason": "no test passed"}
        elif self._lacks_results(part):
            record |= {"result": "failed", "reason": f"made no {part.makes}"}
        if record["result"] == "failed":
            print("\n".join(text.splitlines()[-20:]))
        return record

    def _write(self) -> None:
        """Whole or not at all: the next call goes on from it."""
        data = {**self.here, **self.provenance, "parts": self.done}
        data |= gpu_report.measured(self.done, self.output, self.provenance["commit"])
        texts = {self.path.with_suffix(".md"): gpu_report.markdown(data), self.path: gpu_report.to_json(data)}
        if "benchmark" in data:
            texts[self.output / f"{data['benchmark']['name']}.json"] = gpu_report.to_json(data["benchmark"])
        for path, text in texts.items():
            new = path.with_suffix(path.suffix + ".new")
            new.write_text(text, encoding="utf-8")
            new.replace(path)


def run_within(limit: float, command: Sequence[str], env: Any, output: Any) -> int | None:
    """The exit status of a command, or None if it took longer: then it is killed with all that it started."""
    libc, parent_death_signal = ctypes.CDLL(None), 1  # PR_SET_PDEATHSIG

    def alone() -> None:
        os.setpgid(0, 0)  # to be killed as a whole
        libc.prctl(parent_death_signal, signal.SIGKILL)  # if this process is killed: the next needs the GPU

    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **env}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, preexec_fn=alone
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {step.name:12} {step.does}" for step in all_steps("cuda", OUTPUT))
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"steps, in this order:\n{listed}",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("steps", nargs="*", metavar="STEP", help="default: all")
    add("--again", action="store_true", help="also what is done: of the steps named, or of all")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal, on small images")
    add("--output", type=Path, default=OUTPUT, metavar="FOLDER", help="default: build/check_gpu")
    add("--wheel", type=Path, help="take the libraries out of this wheel")
    add("--limit", type=float, default=600, metavar="SECONDS", help="for a part, where its step has more")
    jobs = min(8, (os.cpu_count() or 2) // 2)
    add("--jobs", type=int, default=jobs, help="processes of the suite, default here: %(default)s")
    add("--commit", help="where this is no checkout: what it was taken from")
    parsed = parser.parse_args(arguments)
    names = [step.name for step in all_steps("cuda", OUTPUT)]
    for name in parsed.steps:
        if name not in names:
            parser.error(f"there is no step {name!r}; there are {', '.join(names)}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    sys.path.append(str(ROOT / "benchmarks"))  # whose tables the report has
    output = parsed.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    provenance = {"commit": parsed.commit or commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    check = Check(output, machine(parsed.device), provenance, parsed.limit)
    wheel = parsed.wheel and parsed.wheel.resolve()
    status = check.run(all_steps(parsed.device, output, wheel, parsed.jobs), parsed.steps, parsed.again)
    print(check.path.with_suffix(".md").read_text(encoding="utf-8"))
    return status


def _stop(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)  # so that what runs is killed on the way out


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
