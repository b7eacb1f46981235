#!/usr/bin/env bash
# Set up the environment with the development packages, then ruff, mypy and the test suite.
#
#   bash scripts/test.sh                 everything but the tests marked slow
#   bash scripts/test.sh --slow          the slow ones too
#   bash scripts/test.sh tests/losses    any pytest arguments
#   bash scripts/test.sh --help
#
# Tests that need the real data run where DALR_DATA names its folder. Skipped tests are listed with their reason.
# DALR_PYTHON names an interpreter that already has the packages; then no environment is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
  sed -n '2,10s/^# \{0,1\}//p' scripts/test.sh
  exit 0
fi

source scripts/environment.sh
prepare_python dev

failed=0
echo "— ruff"
"$PYTHON" -m ruff check dalr scripts tests || failed=1
echo "— mypy"
"$PYTHON" -m mypy || failed=1
echo "— pytest"
# Two processes for two cores, so one thread in each; a file stays on one of them, for what its tests share.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$PYTHON" -m pytest -n 2 --dist loadfile "$@" || failed=$?
exit "$failed"
