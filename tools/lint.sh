#!/usr/bin/env bash
# Style, types, arrows; all three run, the first failure decides the exit status.
set -u
cd "$(dirname "$0")/.."
status=0
ruff check . || status=1
mypy || status=1
lint-imports --no-cache || status=1
exit $status
