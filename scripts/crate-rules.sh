#!/usr/bin/env bash
# Holds the crates to their layers: who may depend on whom, who may name the libraries
# of the queue and of traces, and who may read the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=''
broken() {
    echo "crate rule broken: $*" >&2
    failed=yes
}

# Our own crates that a crate depends on directly, for the given kinds of edges.
depends_on() { # crate, edges
    local tree
    tree=$(cargo tree --locked --edges "$2" --depth 1 --prefix none --package "$1" --all-features --target all)
    awk -v self="$1" '$1 ~ /^(api|worker|entity|migration|shared|testing)$/ && $1 != self { print $1 }' <<<"$tree" | sort -u
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
may_depend_on shared normal,build entity migration
may_depend_on entity normal,build
may_depend_on migration normal,build
may_depend_on testing normal,build shared
# Tests: the API's run the real worker and single migrations, the worker's know no API.
may_depend_on api dev shared entity migration worker testing
may_depend_on worker dev shared entity testing

# Lines in our sources that match, but for files that may have them.
only_in() { # what is meant, files that may, pattern
    local lines
    lines=$(grep -rnE --include='*.rs' "$3" ./*/src | grep -vE "^\./$2" || true)
    [ -z "$lines" ] || broken "$1:"$'\n'"$lines"
}

only_in "only shared/src/queue names apalis" 'shared/src/queue(\.rs|/|_)' \
    '^[^/]*(\bapalis(_[a-z]+)?::|\buse apalis)'
only_in "only shared/src/trace names OpenTelemetry" 'shared/src/trace(\.rs|/)' \
    '^[^/]*(\bopentelemetry(_[a-z]+)?::|\buse opentelemetry)'
only_in "only config.rs files read the environment" '[^:]*/config\.rs:' \
    '^[^/]*(\benv::vars?(_os)?\b|\benv *= *"|#\[arg\([^]]*\benv\b)'

[ -z "$failed" ] || exit 1
echo "Crate rules hold."
