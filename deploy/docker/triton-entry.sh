#!/usr/bin/env bash
# Becomes the tritonserver of one scenario's pool: loads every part in the model repository before it says that it is
# ready, and ends when one of them does not load. Further options are passed on.
#
#   RECMESH_REPOSITORY      the model repository, laid out by `python -m deploy.models` (/repository)
#   RECMESH_STOP_TIMEOUT_S  how long executions in flight may take after SIGTERM (5)
#   RECMESH_GRPC_PORT, RECMESH_METRICS_PORT, RECMESH_HTTP_PORT  where it listens (8001, 8002, 8000)
#   RECMESH_TLS             folder with tls.crt, tls.key and ca.crt: mutual TLS on gRPC, and health over HTTP, since
#                           probes have no certificate. Left out: plaintext gRPC and no HTTP.
set -euo pipefail

options=(
    --model-repository="${RECMESH_REPOSITORY:-/repository}"
    --model-control-mode=explicit
    --load-model='*'
    --disable-auto-complete-config
    --grpc-port="${RECMESH_GRPC_PORT:-8001}"
    --metrics-port="${RECMESH_METRICS_PORT:-8002}"
    --exit-timeout-secs="${RECMESH_STOP_TIMEOUT_S:-5}"
    # Clients send keepalive pings; without these the server hangs up on them.
    --grpc-keepalive-permit-without-calls=1
    --grpc-http2-min-recv-ping-interval-without-data=5000
)
if [ -n "${RECMESH_TLS:-}" ]; then
    options+=(
        --grpc-use-ssl=true
        --grpc-use-ssl-mutual=true
        --grpc-server-cert="$RECMESH_TLS/tls.crt"
        --grpc-server-key="$RECMESH_TLS/tls.key"
        --grpc-root-cert="$RECMESH_TLS/ca.crt"
        --http-port="${RECMESH_HTTP_PORT:-8000}"
    )
else
    options+=(--allow-http=false)
fi
exec tritonserver "${options[@]}" "$@"
