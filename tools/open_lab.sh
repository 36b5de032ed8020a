#!/usr/bin/env bash
# Open JupyterLab on a notebook: $1 the environment's Python, $2 the notebook, then options for JupyterLab.
# It listens on this machine only, with a token. Without a display no browser is started.
set -euo pipefail
python=$1 notebook=$2
shift 2

options=(
  --ServerApp.ip=127.0.0.1
  --ServerApp.root_dir="$PWD"
  --LabApp.default_url="/lab/tree/$notebook"
  --LabApp.news_url=None
  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate
)
if [ "$(id -u)" = 0 ]; then options+=(--allow-root); fi
if [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && [ "$(uname)" != Darwin ]; then
  options+=(--no-browser)
  echo "No display here: open the address with the token, printed below, in a browser on this machine."
fi
exec "$python" -m jupyterlab "${options[@]}" "$@"
