#!/usr/bin/env bash
# The tests under AddressSanitizer and under valgrind, a part of their random cases each (SHARPWAVE_TIMES,
# SHARPWAVE_SCHEDULES, PROPTEST_CASES: more for more). `make sanitize` calls it.
#
#   core       the core's tests with AddressSanitizer, for each instruction set that this machine has
#   extension  the Python tests that exercise the extension, with AddressSanitizer in the extension
#   valgrind   the core's unit tests on the portable paths, and on AVX2, which is all of them that valgrind knows
#
# The standard library is not instrumented: what it touches on our behalf is seen through its allocations alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

# A nightly compiler has the sanitizers. Where there is none, the pinned one has them as well, told to be one.
if [[ -z ${TOOLCHAIN:-} ]] && cargo +nightly --version >/dev/null 2>&1; then
  TOOLCHAIN=nightly
fi
if [[ -z ${TOOLCHAIN:-} ]]; then
  export RUSTC_BOOTSTRAP=1
fi
HOST=$(rustc -vV | sed -n 's/^host: //p')
PYTHON=${PYTHON:-.venv/bin/python}
parts=${*:-core extension valgrind}

export CARGO_TARGET_DIR=target/sanitize
export SHARPWAVE_TIMES=${SHARPWAVE_TIMES:-0.2} SHARPWAVE_SCHEDULES=${SHARPWAVE_SCHEDULES:-10}
export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1"

sets=portable
case $HOST in
x86_64-*)
  grep -q avx2 /proc/cpuinfo && sets="$sets avx2"
  grep -q avx512f /proc/cpuinfo && sets="$sets avx512"
  ;;
aarch64-*) sets="$sets neon" ;;
esac

asan() {
  RUSTFLAGS="-Zsanitizer=address" cargo ${TOOLCHAIN:+"+$TOOLCHAIN"} "$1" --locked --target "$HOST" "${@:2}"
}

for part in $parts; do
  case $part in
  core)
    for set in $sets; do
      echo "AddressSanitizer, the core's tests, $set"
      SHARPWAVE_SIMD=$set PROPTEST_CASES=${PROPTEST_CASES:-16} asan test -p sharpwave-core --lib --test damage --test journal \
        --test properties --test search --quiet
    done
    # The scheduler gives every thread a stack of its own, where no leak detector looks for what is still in use.
    echo "AddressSanitizer, the schedules"
    ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" asan test -p sharpwave-core --test schedules --quiet
    ;;
  extension)
    echo "AddressSanitizer, the extension's tests"
    asan build -p sharpwave-py --quiet
    folder=$CARGO_TARGET_DIR/python
    mkdir -p "$folder"
    cp -r python/sharpwave "$folder/"
    rm -f "$folder"/sharpwave/_core.*.so
    cp "$CARGO_TARGET_DIR/$HOST/debug/lib_core.so" "$folder/sharpwave/_core.abi3.so"
    # CPython keeps what it allocated until the process ends: no leak of ours.
    ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" LD_PRELOAD=$(cc -print-file-name=libasan.so) PYTHONMALLOC=malloc \
      PYTHONPATH="$folder:tests/helpers" "$PYTHON" -m pytest -q -p no:cacheprovider -p no:xdist ${PYTEST_ARGS:-} \
      tests/core/test_store_api.py tests/core/test_bad_input.py tests/core/test_golden.py tests/core/test_search.py tests/core/test_trust.py \
      tests/core/test_threads.py tests/core/test_durability.py
    ;;
  valgrind)
    # valgrind has no flushing of small numbers to zero, so the test that it is switched off cannot pass there.
    for set in portable avx2; do
      [[ " $sets " == *" $set "* ]] || continue
      echo "valgrind, the core's tests, $set"
      CARGO_TARGET_DIR=target cargo test -p sharpwave-core --lib --test journal --test search --no-run --locked --quiet
      for name in sharpwave_core journal search; do
        binary=$(ls -t target/debug/deps/"$name"-* | grep -v '\.d$' | head -n 1)
        SHARPWAVE_SIMD=$set PROPTEST_CASES=2 valgrind --quiet --error-exitcode=9 --leak-check=no --num-callers=30 \
          "$binary" --test-threads=1 --quiet --skip a_flushing_thread
      done
    done
    ;;
  *)
    echo "unknown part $part: core, extension, valgrind" >&2
    exit 2
    ;;
  esac
done
