#!/usr/bin/env bash
# A one-machine cluster, and the quickstart as a job on it. Results stay in the folder given (default: a new one).
set -euo pipefail
cd "$(dirname "$0")/.."
storage=${1:-$(mktemp -d)}
export PATH="$PWD/.venv/bin:$PATH" RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$storage/token"
(umask 077 && mkdir -p "$storage" && head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")
# A folder of its own, by which this cluster's processes are known: `ray stop` would end every Ray on the machine.
session=$(mktemp -d /tmp/rayXXXXXX)
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
dashboard=$(free_port)
ray start --head --port=0 --temp-dir="$session" --dashboard-port="$dashboard" \
  --dashboard-agent-listen-port="$(free_port)" --disable-usage-stats > /dev/null
trap 'pkill -f "$session"; rm -rf "$session"' EXIT
ray job submit --address "http://127.0.0.1:$dashboard" --working-dir . -- \
  plmray run sweeps/quickstart.yaml --yes --storage-path "$storage"
echo "results: $storage/quickstart"
