#!/usr/bin/env bash
# An MLflow server with users, for sweeps whose storage is a bucket or whose drivers are many.
#   pip install -c constraints.txt 'mlflow[auth]' boto3 psycopg2-binary   (Flask-WTF; s3:// artifacts; PostgreSQL)
#   MLFLOW_FLASK_SERVER_SECRET_KEY=… MLFLOW_AUTH_ADMIN_PASSWORD=… cluster/mlflow-server.sh
# Sweeps then need MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
set -euo pipefail
umask 077
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?set it to a long random text, the same at every start}"
state=${STATE:-$PWD/mlflow-server} # the databases, where they are SQLite
mkdir -p "$state"
# postgresql://user:password@host/mlflow for more than a few sweeps; by the environment, since `ps` shows arguments
export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$state/mlflow.db}
users=${USERS_STORE:-sqlite:///$state/users.db}   # may be the same PostgreSQL database: its tables have other names
artifacts=${ARTIFACTS:-$state/artifacts}          # s3://bucket/mlflow, with credentials from the environment or a role
host=${HOST:-127.0.0.1}                           # HTTP sends passwords in clear: beyond this machine put TLS before it
port=${PORT:-5000}
# The names clients call it by. Given, they replace the default (localhost and private addresses): repeat localhost.
allowed=${ALLOWED_HOSTS:-}                        # mlflow.example.org,mlflow.example.org:*,localhost:*

# The admin's name and password (MLFLOW_AUTH_ADMIN_USERNAME, MLFLOW_AUTH_ADMIN_PASSWORD) count at the first start only.
export MLFLOW_AUTH_CONFIG_PATH="$state/basic_auth.ini"
cat > "$MLFLOW_AUTH_CONFIG_PATH" << INI
[mlflow]
default_permission = READ
database_uri = ${users//\%/%%}
admin_username = admin
INI
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # else eight helper processes of 240 MB
exec mlflow server --app-name basic-auth --host "$host" --port "$port" --workers "${WORKERS:-4}" \
  --serve-artifacts --artifacts-destination "$artifacts" \
  ${allowed:+--allowed-hosts "$allowed"}
