#!/usr/bin/env bash
# Holds docs/security.md to the truth: each requirement has an answer, and each test
# that is named there exists.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/security.md
failed=''
broken() {
    echo "security rule broken: $*" >&2
    failed=yes
}

# Whether one of these files has a test of that name.
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

# Tests are named as nextest names them: `module::test`, or `module::tests::test` for
# those inside of a module.
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
        broken "$page names $test, which is no test"
    fi
done

requirements=$(grep -E '^\| [0-9.]+ \| [12] \|' "$page")
answered='(\*\*Proven:\*\* .*`[a-z_]+::|\*\*Does not apply:\*\* .|\*\*Not met(:\*\*|\*\* in part:) .)'
unanswered=$(grep -vE "$answered" <<<"$requirements" || true)
[ -z "$unanswered" ] || broken "no answer:"$'\n'"$unanswered"
twice=$(cut -d ' ' -f 2 <<<"$requirements" | sort | uniq -d)
[ -z "$twice" ] || broken "answered twice: $twice"

[ -z "$failed" ] || exit 1
count() { grep -cF "**$1" <<<"$requirements"; }
echo "Security rules hold: $(count Proven) requirements proven," \
    "$(count 'Does not apply') that do not apply, $(count 'Not met') not met."
