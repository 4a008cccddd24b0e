#!/bin/sh
# Secrets arrive as files that have the name of the variable they belong in; then the command is run.
set -eu
for file in "${OJALA_SECRETS:-/run/secrets/env}"/*; do
    if [ -f "$file" ]; then
        export "$(basename "$file")=$(cat "$file")"
    fi
done
exec "$@"
