#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
#
# On a machine with an NVIDIA GPU, everything that needs one:
#
#   tools/check_gpu.sh [FOLDER]
#
# builds, runs the test suite, compute-sanitizer's four tools on a reduced suite, each with a bitwise comparison of
# repeated runs, the benchmark, and Nsight where it is installed. Logs go to FOLDER (default build/check_gpu). Ends with
# a table and with status 1 if a step failed. PYTHON (default python3) must have torch with CUDA; the package and its test
# requirements are installed into it. SANITIZER_TESTS chooses the reduced suite (pytest -k).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
logs=$(realpath -m "${1:-build/check_gpu}")
sanitizer_tests=${SANITIZER_TESTS:-cuda}
mkdir -p "$logs"
failed=0
summary=$logs/summary.txt
: >"$summary"

# step NAME COMMAND...: its output in NAME.log, a line in the summary.
step() {
  local name=$1 start=$SECONDS result=ok
  shift
  echo "== $name"
  if ! "$@" >"$logs/$name.log" 2>&1; then
    result=FAILED
    failed=1
    tail -n 20 "$logs/$name.log"
  fi
  printf '%-28s %-8s %5ds  %s\n' "$name" "$result" $((SECONDS - start)) "$logs/$name.log" >>"$summary"
}

skip() {
  printf '%-28s %-8s %6s  %s\n' "$1" skipped '' "$2" >>"$summary"
}

require() {
  step "$@"
  if ((failed)); then
    cat "$summary"
    exit 1
  fi
}

describe() {
  nvidia-smi && "$python" -m torch.utils.collect_env && "$python" -m racnn_ops
}

# Where the operators are compared with themselves, no tolerance is allowed.
same_bits() {
  "$python" - <<'END'
import itertools
import torch
import racnn_ops

torch.manual_seed(0)
for dtype, channels_last, boundary in itertools.product(
    (torch.float32, torch.float16, torch.bfloat16), (False, True), ("zeros", "border", "clip")
):
    images = torch.rand(4, 32, 150, 170, device="cuda", dtype=dtype)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    windows = torch.rand(4, 5, 3, device="cuda") * 60 + 40
    grad = torch.randn(4, 5, 32, 96, 80, device="cuda", dtype=dtype)
    runs = []
    for _ in range(5):
        leaves = images.clone().requires_grad_(), windows.clone().requires_grad_()
        crops = racnn_ops.attention_crop(*leaves, (96, 80), boundary=boundary, mask_steepness=0.5)
        runs.append((crops, *torch.autograd.grad(crops, leaves, grad)))
    for run in runs[1:]:
        for name, first, again in zip(("crops", "image gradient", "window gradient"), runs[0], run):
            assert torch.equal(first, again), f"{name} differs from run to run: {dtype}, {boundary}"
print("the same bits in every run")
END
}

require gpu nvidia-smi
require build env FORCE_CUDA=1 "$python" -m pip install --no-build-isolation --editable '.[bench,test]'
require cuda "$python" -c 'import racnn_ops, racnn_ops._library as l; assert l.has_cuda, l.cuda_error'
step describe describe
step suite "$python" -m pytest -q tests
step same_bits same_bits

sanitizer=$(command -v compute-sanitizer || command -v "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
for tool in memcheck racecheck initcheck synccheck; do
  if [[ -n $sanitizer ]]; then
    # Only our kernels: torch's own are neither ours to judge nor quick under the tool.
    step "$tool" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      --kernel-name regex=crop_ --kernel-name regex=boxcar_ "$python" -m pytest -q -x tests -k "$sanitizer_tests" -m 'not slow'
  else
    skip "$tool" 'compute-sanitizer is not installed'
  fi
done

step benchmark "$python" benchmarks/bench_crop.py --device cuda
if command -v nsys >/dev/null; then
  step nsys nsys profile --force-overwrite true --stats true -o "$logs/bench" \
    "$python" benchmarks/bench_crop.py --device cuda --quick
else
  skip nsys 'not installed'
fi
if command -v ncu >/dev/null; then
  step ncu ncu --set full --force-overwrite -o "$logs/kernels" --kernel-name 'regex:crop_|boxcar_' --launch-count 40 \
    "$python" benchmarks/bench_crop.py --device cuda --quick
else
  skip ncu 'not installed'
fi

echo
cat "$summary"
exit $failed
