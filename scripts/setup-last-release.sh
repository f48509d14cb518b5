#!/usr/bin/env bash
# Builds the last release's API and worker, once, and prints their folder. Prints the reason in one
# line if it can't.
set -euo pipefail
cd "$(dirname "$0")/.."

# The commit of the last release; a new release updates it.
release=412b276

give_up() {
    echo "The last release can't be built: $*" >&2
    exit 1
}

commit=$(git rev-parse --verify --quiet "$release^{commit}") ||
    give_up "this clone lacks the commit $release. Run: git fetch --unshallow"

mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
folder=$target/last-release/$commit
programs=$folder/debug
if [ ! -x "$programs/api" ] || [ ! -x "$programs/worker" ]; then
    echo "Building the last release, $release (once)" >&2
    sources=$folder/sources
    rm -rf "$target/last-release"
    mkdir -p "$sources"
    git archive "$commit" | tar -x -C "$sources"

    # It shares what cargo makes of other people's crates with the present build. Our own
    # crates have the same names in both, and cargo would take the one's for the other's;
    # but it keeps apart whatever was compiled through a wrapper, by the wrapper's path.
    wrapper=$folder/rustc
    printf '#!/bin/sh\nexec "$@"\n' >"$wrapper"
    chmod +x "$wrapper"
    export RUSTC_WORKSPACE_WRAPPER=$wrapper
    export CARGO_BUILD_BUILD_DIR=$target
    # The programs themselves go where they can't replace the present ones.
    export CARGO_TARGET_DIR=$folder
    # Nobody changes these sources.
    export CARGO_INCREMENTAL=0
    # There are no examples. But asking for them has cargo turn on the same features of other
    # people's crates as for tests, where it would else make many of them once more.
    (cd "$sources" && cargo build --locked --workspace --bins --examples) >&2 ||
        give_up "cargo failed."
fi
echo "$programs"
