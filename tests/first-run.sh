#!/bin/sh
# Builds synclog and shows its main job on real input: the history that an older system left behind.
# Every step is checked; the first surprise ends it with a message.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --quiet --features cli
synclog="${CARGO_TARGET_DIR:-target}/release/synclog"
legacy=tests/data/legacy
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
store="$dir/store"

# Runs a command, shows it, and checks its exit code.
expect() {
    want=$1
    shift
    printf '\n$ synclog %s\n' "$*"
    got=0
    "$synclog" "$@" || got=$?
    [ "$got" = "$want" ] || { echo "exit $got, expected $want" >&2; exit 1; }
}

# Checks how many lines a command prints.
lines() {
    want=$1
    shift
    got=$("$synclog" "$@" --output ndjson 2>/dev/null | wc -l)
    [ "$got" -eq "$want" ] || { echo "$got lines from 'synclog $*', expected $want" >&2; exit 1; }
}

export SYNCLOG_DIR="$store"
expect 5 import "$legacy/sync_logs_backup.jsonl" # three of its lines are broken
expect 0 import "$legacy/legacy.db"
lines 340 export
lines 7 runs --state failed
lines 3 runs --state stuck
expect 0 --output table runs --state failed
expect 0 --output table runs --state stuck
printf '\n$ rm %s/synclog.db\n' "$store"
rm "$store/synclog.db"
expect 3 list
expect 0 replay
expect 0 verify
lines 340 list --all
printf '\nAll as it should be.\n'
