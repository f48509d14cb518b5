#!/usr/bin/env bash
# Checks the layers: which crates may depend on which, and which files may use apalis and
# OpenTelemetry or read the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=''
broken() {
    echo "check-layers: $*" >&2
    failed=yes
}

# The crates of this workspace on which a crate depends directly, by the given kinds of edges.
depends_on() { # crate, edges
    local tree
    tree=$(cargo tree --locked --edges "$2" --depth 1 --prefix none --package "$1" --all-features --target all)
    awk -v self="$1" '$1 ~ /^(api|worker|multicall|entity|migration|shared|testing)$/ && $1 != self { print $1 }' <<<"$tree" | sort -u
}

may_depend_on() { # crate, edges, allowed crates
    local crate=$1 edges=$2 found name
    shift 2
    found=$(depends_on "$crate" "$edges")
    for name in $found; do
        case " $* " in
            *" $name "*) ;;
            *) broken "$crate depends on $name ($edges); allowed: ${*:-none}" ;;
        esac
    done
}

may_depend_on api normal,build shared entity
may_depend_on worker normal,build shared entity
may_depend_on multicall normal,build,dev api worker testing
may_depend_on shared normal,build entity migration
may_depend_on entity normal,build
may_depend_on migration normal,build
may_depend_on testing normal,build shared
# Tests: the API's run the real worker and single migrations; the worker's do not use the API.
may_depend_on api dev shared entity migration worker testing
may_depend_on worker dev shared entity testing

# Fails on matching lines outside of the allowed files.
only_in() { # rule, allowed files, pattern
    local lines
    lines=$(grep -rnE --include='*.rs' "$3" ./*/src | grep -vE "^\./$2" || true)
    [ -z "$lines" ] || broken "$1:"$'\n'"$lines"
}

only_in "only shared/src/queue may use apalis" 'shared/src/queue(\.rs|/|_)' \
    '^[^/]*(\bapalis(_[a-z]+)?::|\buse apalis)'
only_in "only shared/src/trace may use OpenTelemetry" 'shared/src/trace(\.rs|/)' \
    '^[^/]*(\bopentelemetry(_[a-z]+)?::|\buse opentelemetry)'
only_in "only config.rs files may read the environment" '[^:]*/config\.rs:' \
    '^[^/]*(\benv::vars?(_os)?\b|\benv *= *"|#\[arg\([^]]*\benv\b)'

[ -z "$failed" ] || exit 1
echo "check-layers: ok"
