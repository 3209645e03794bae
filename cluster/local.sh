#!/usr/bin/env bash
# A one-machine cluster, and the quickstart as a job on it. Results stay in the folder given (default: a new one).
set -euo pipefail
cd "$(dirname "$0")/.."
storage=${1:-$(mktemp -d)}
export PATH="$PWD/.venv/bin:$PATH" RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$storage/token"
(umask 077 && mkdir -p "$storage" && head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")
ray start --head --port=0 --dashboard-port=8265 --disable-usage-stats > /dev/null
trap 'ray stop > /dev/null' EXIT
ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
  plmray run sweeps/quickstart.yaml --yes --storage-path "$storage"
echo "results: $storage/quickstart"
