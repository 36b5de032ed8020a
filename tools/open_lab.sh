#!/usr/bin/env bash
# Open JupyterLab on a notebook: $1 the environment's bin folder, $2 the notebook, then options for JupyterLab.
# It listens on localhost with a token. Without a display no browser is started and the address is printed.
set -euo pipefail
bin=$1 notebook=$2
shift 2

options=(--ServerApp.ip=127.0.0.1 --LabApp.news_url=None)
[ "$(id -u)" = 0 ] && options+=(--allow-root)
if [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && [ "$(uname)" != Darwin ]; then
  options+=(--no-browser)
  echo "No display here: open the address with the token, printed below, in a browser."
fi
exec "$bin/python" -m jupyterlab "${options[@]}" "$@" "$notebook"
