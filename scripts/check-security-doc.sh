#!/usr/bin/env bash
# Checks docs/security.md: each requirement has an answer, and each test that is named exists.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/security.md
failed=''
broken() {
    echo "check-security-doc: $*" >&2
    failed=yes
}

# Succeeds if one of the files has a test of that name.
has_test() { # name, files
    local name=$1
    shift
    awk -v signature="fn $name()" '
        FNR == 1 { is_test = 0 }
        index($0, signature) && is_test { found = 1 }
        { is_test = /^ *#\[(tokio::)?test/ }
        END { exit !found }
    ' "$@"
}

# Tests are named as in nextest: `module::test`, or `module::tests::test` for unit tests.
named=$(grep -oE '`([a-z_]+::)+[a-z0-9_]+`' "$page" | tr -d '`' | sort -u)
[ -n "$named" ] || broken "$page names no tests"
for test in $named; do
    module=${test%::*}
    case "$test" in
        *::tests::*) module=${module%::tests} files=("api/src/${module//:://}.rs") ;;
        *) files=(api/tests/{it,processes}/"${module//:://}.rs") ;;
    esac
    present=()
    for file in "${files[@]}"; do
        [ ! -f "$file" ] || present+=("$file")
    done
    if [ ${#present[@]} -eq 0 ] || ! has_test "${test##*::}" "${present[@]}"; then
        broken "$page names $test, which does not exist"
    fi
done

requirements=$(grep -E '^\| [0-9.]+ \| [12] \|' "$page")
answered='(\*\*Proven:\*\* .*`[a-z_]+::|\*\*Does not apply:\*\* .|\*\*Not met(:\*\*|\*\* in part:) .)'
unanswered=$(grep -vE "$answered" <<<"$requirements" || true)
[ -z "$unanswered" ] || broken "requirements without an answer:"$'\n'"$unanswered"
twice=$(cut -d ' ' -f 2 <<<"$requirements" | sort | uniq -d)
[ -z "$twice" ] || broken "requirements answered twice: $twice"

[ -z "$failed" ] || exit 1
count() { grep -cF "**$1" <<<"$requirements"; }
echo "check-security-doc: ok, $(count Proven) requirements proven," \
    "$(count 'Does not apply') not applicable, $(count 'Not met') not met"
