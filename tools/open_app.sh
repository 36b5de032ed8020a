#!/usr/bin/env bash
# Open the explorer as a page of its own, through Voila: $1 the environment's Python, then options for Voila.
# It listens on this machine only, with a token. Without a display no browser is started. The page may load from
# this machine alone: Voila's template asks for icons from elsewhere, which are not needed and may never come.
set -euo pipefail
python=$1
shift

if ! "$python" -c "import voila" 2>/dev/null; then
  echo "Installing Voila ..."
  "$python" -m pip install --disable-pip-version-check --quiet -c constraints.txt voila
fi
local="default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'"
options=(
  --Voila.ip=127.0.0.1
  --Voila.auto_token=True
  --Voila.tornado_settings="{'headers': {'Content-Security-Policy': \"$local\"}}"
)
if [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && [ "$(uname)" != Darwin ]; then
  options+=(--no-browser)
  echo "No display here: open the address with the token, printed below, in a browser on this machine."
fi
export DSGP_APP_FOLDER=$PWD
exec "$python" -W ignore::DeprecationWarning -m voila tools/app.ipynb "${options[@]}" "$@"
