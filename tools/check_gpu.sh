#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
#
# On a machine with an NVIDIA GPU, everything that needs one:
#
#   tools/check_gpu.sh [FOLDER]
#
# builds, runs the test suite, the bitwise comparison of repeated runs, compute-sanitizer's four tools on a reduced
# suite, the benchmark, and Nsight where it is installed. Logs go to FOLDER (default build/check_gpu). Ends with a table,
# and with status 1 if a step failed. PYTHON (default python3) must have torch with CUDA, CMake and Ninja; the package
# and its test requirements are installed into it. SANITIZER_TESTS are the files of the reduced suite.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
logs=$(realpath -m "${1:-build/check_gpu}")
sanitizer_tests=${SANITIZER_TESTS:-tests/ops/test_edge_cases.py tests/ops/test_boxcar.py tests/ops/test_layout.py}
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

require gpu nvidia-smi
require build env FORCE_CUDA=1 "$python" -m pip install --no-build-isolation --editable '.[bench,test]'
require cuda "$python" -c 'import racnn_ops, racnn_ops._library as l; assert l.has_cuda, l.cuda_error'
step describe describe
step suite "$python" -m pytest -q tests
step determinism "$python" -m pytest -q tests/ops/test_determinism.py -k cuda

sanitizer=$(command -v compute-sanitizer || command -v "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
for tool in memcheck racecheck initcheck synccheck; do
  if [[ -n $sanitizer ]]; then
    # Only our kernels: torch's own are not ours to judge. Without the caching allocator every tensor has its own bounds.
    # shellcheck disable=SC2086
    step "$tool" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      --kernel-name kns=racnn "$python" -m pytest -q $sanitizer_tests -k cuda -m 'not slow'
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
metrics=launch__waves_per_multiprocessor,smsp__inst_executed.sum,l1tex__data_pipe_lsu_wavefronts.sum,dram__bytes.sum
if command -v ncu >/dev/null; then
  # The metrics are those that csrc/cuda/README.md has a bound for.
  step ncu ncu --set full --metrics "$metrics" --force-overwrite -o "$logs/kernels" \
    --kernel-name 'regex:crop_|boxcar_' --launch-count 40 "$python" benchmarks/bench_crop.py --device cuda --quick
else
  skip ncu 'not installed'
fi

echo
cat "$summary"
exit $failed
