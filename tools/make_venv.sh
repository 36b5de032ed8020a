#!/usr/bin/env bash
# Make the virtual environment $1 with the newest Python from 3.11 on, and install the project in it.
set -euo pipefail
venv=$1

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=""
for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
  if command -v "$name" >/dev/null && new_enough "$name"; then python=$name; break; fi
done
if [ -z "$python" ]; then
  echo "No Python from 3.11 on was found (python3 is $(python3 --version 2>&1 || echo missing))." >&2
  echo "Install one, from python.org or your package manager, and run make again." >&2
  exit 1
fi

if ! [ -x "$venv/bin/python" ] && ! "$python" -m venv "$venv"; then
  rm -rf "$venv"
  echo "$python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2
  exit 1
fi
echo "Installing into $venv (a few minutes the first time) ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,test]'
