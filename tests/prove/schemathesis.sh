#!/usr/bin/env bash
# Requests made up from the OpenAPI document, good and bad ones, against a running daemon that nobody needs:
#   tests/prove/schemathesis.sh http://127.0.0.1:8080 rung-data/admin.token [SECONDS]
# It makes and deletes channels, templates and tokens there. Fails on any 5xx, on any answer that the document does not
# describe, on bad data that is taken.
set -euo pipefail
url=${1:?"the daemon's address"} token=$(head -n 1 "${2:?file with an API token}") seconds=${3:-120}
cd "$(dirname "$0")/../.."

# What the tool leaves in its folder is thrown away with the build.
mkdir -p target/schemathesis
cd target/schemathesis
if [ ! -x bin/schemathesis ]; then
	python3 -m venv .
	bin/pip install --quiet 'schemathesis==4.32.5'
fi

# What a schema cannot say (a name that is taken, a field that another one rules out) is refused with 409 or 422. Who asks
# without a token is soon asked to wait, with 429, which the tool does not know: tests/api asks every route for that.
checks=(--checks all --exclude-checks positive_data_acceptance,ignored_auth,missing_required_header)
common=(--header "Authorization: Bearer $token" --rate-limit 80/s --request-timeout 40
	--continue-on-failure --generation-deterministic "${checks[@]}")

run() {
	bin/schemathesis --config-file ../../tests/prove/schemathesis.toml run "$url/v1/openapi.json" "${common[@]}" "$@"
}

# An event stream has no end; tokens are deleted by themselves, so that no run deletes the one that it uses. The tool
# leaves out the document's own address unless it is named.
run --max-time "$seconds" --exclude-operation-id stream_events --exclude-operation-id delete_token
run --phases examples,coverage,fuzzing --include-operation-id delete_token --include-operation-id get_openapi
