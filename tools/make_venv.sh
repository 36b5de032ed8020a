#!/usr/bin/env bash
# Make or renew the virtual environment $1 and install the project in it; $2 chooses the Python, optionally.
# The stamp $1/.ready, which names this folder, is written last: without it the next run starts again.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
here=$(pwd -P)

# Prints ok, version (too old, or newer than torch's wheels), venv (cannot make environments), or missing.
verdict() {
  "$1" - 2>/dev/null <<'PYTHON' || echo missing
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    print("version")
else:
    try:
        import ensurepip, venv
        print("ok")
    except ImportError:
        print("venv")
PYTHON
}

find_python() {
  local name without_venv=""
  for name in "$@"; do
    case $(verdict "$name") in
      ok) echo "$name"; return ;;
      venv) without_venv=${without_venv:-$name} ;;
    esac
  done
  if [ -n "$without_venv" ]; then
    local version
    version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$without_venv ($version) cannot make virtual environments: its venv or ensurepip is missing." >&2
    echo "On Debian and Ubuntu: sudo apt install python$version-venv. Then run make again." >&2
  else
    echo "No Python from 3.11 to 3.14 among: $*." >&2
    echo "Install one, with your package manager or from python.org, and run make again." >&2
    echo "One that is elsewhere: make lab PYTHON=/path/to/python3" >&2
  fi
  return 1
}

# An environment does not survive a move, nor a change of the Python it was made with.
if [ "$(cat "$venv/.ready" 2>/dev/null || echo "$here")" != "$here" ] ||
  ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  candidates=(python3 python3.13 python3.12 python3.11 python3.14 python)
  if [ -n "${2:-}" ]; then candidates=("$2"); fi
  python=$(find_python "${candidates[@]}")
  echo "Making $venv with $("$python" --version) ..."
  "$python" -m venv --clear "$venv"
fi

rm -f "$venv/.ready"
echo "Installing into $venv: minutes the first time, torch alone can be gigabytes on Linux ..."
install=("$venv/bin/python" -m pip install --disable-pip-version-check -c constraints.txt -e '.[lab,test]')
if ! [ -t 1 ]; then install+=(--quiet); fi
if ! "${install[@]}"; then
  echo "The installation did not finish; pip says why above. Mend that (network? disk?) and run make again." >&2
  exit 1
fi
printf '%s' "$here" >"$venv/.ready"
