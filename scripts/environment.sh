# Sourced by quickstart.sh and test.sh: sets PYTHON to an interpreter that has dalr and the pinned packages.
#
#   DALR_PYTHON=/path/to/python   use this one as it is; nothing is installed
#   otherwise                     .venv beside this folder, made and filled where it is not yet
#
# Call it as:  prepare_python run   or   prepare_python dev

fail() {
  echo "$*" >&2
  exit 1
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3 python; do
    if command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer was found; install one, or set DALR_PYTHON to an interpreter that has the packages"
}

use_given_python() {
  PYTHON=$(command -v "$DALR_PYTHON") || fail "DALR_PYTHON=$DALR_PYTHON: there is no such interpreter"
  is_new_enough "$PYTHON" || fail "DALR_PYTHON=$DALR_PYTHON: is older than Python 3.11"
  local needed="torch torchvision timm open_clip transformers datasets accelerate pydantic typer"
  if [ "$1" = dev ]; then
    needed="$needed pytest pytest_timeout ruff mypy"
  fi
  "$PYTHON" - $needed <<'PYTHON_CODE' || fail "install requirements.lock there, or unset DALR_PYTHON"
import sys
from importlib.util import find_spec

missing = [name for name in sys.argv[1:] if find_spec(name) is None]
if missing:
    sys.exit(f"{sys.executable} lacks: {', '.join(missing)}")
PYTHON_CODE
  # The interpreter may have another copy of dalr, or none: the one beside this script is meant.
  export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
}

install_into_venv() {
  local locks=(-r requirements.lock) stamp=.venv/.dalr-run files=(requirements.lock pyproject.toml)
  if [ "$1" = dev ]; then
    locks+=(-r requirements-dev.lock)
    files+=(requirements-dev.lock)
    stamp=.venv/.dalr-dev
  fi
  local wanted
  wanted=$(cat "${files[@]}" | cksum)
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi
  # torch and torchvision are named in one command, so that pip takes a pair that belongs together.
  local pair
  pair=$(grep -E '^(torch|torchvision)==' requirements.lock | tr '\n' ' ')
  echo "installing the pinned packages into .venv (some gigabytes where there is a CUDA build of torch)"
  # shellcheck disable=SC2086
  .venv/bin/python -m pip install --disable-pip-version-check --quiet $pair "${locks[@]}"
  .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
  echo "$wanted" >"$stamp"
}

prepare_python() {
  if [ -n "${DALR_PYTHON:-}" ]; then
    use_given_python "$1"
  else
    if [ ! -x .venv/bin/python ]; then
      local base
      base=$(find_python)
      echo "making .venv with $("$base" --version)"
      "$base" -m venv .venv || fail "cannot make .venv: on Debian and Ubuntu install the package python3-venv"
    fi
    is_new_enough .venv/bin/python || fail ".venv has a Python older than 3.11: remove it and start again"
    install_into_venv "$1"
    PYTHON=$PWD/.venv/bin/python
  fi
  # Nothing below needs the network.
  export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
}
