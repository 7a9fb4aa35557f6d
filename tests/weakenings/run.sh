#!/usr/bin/env bash
# Proves the tests of durability: weakens the engine in one place at a time, and expects a test to notice.
#
#   tests/weakenings/run.sh             all weakenings
#   tests/weakenings/run.sh NAME...     these alone
#
# Works on a copy of the sources, in a temporary directory. Exits with 1 when a weakening goes unnoticed, when its text is
# no longer found exactly once in the source, or when the tests fail without any. CARGO names another cargo.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cargo=${CARGO:-cargo}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/weakenings
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for part in Cargo.toml Cargo.lock build.rs proto src tests benches config.toml; do
    cp -R "$root/$part" "$copy/"
done
cd "$copy"

wanted=("$@")
baseline=" "
results=()
failed=0

note() {
    results+=("$(printf '%-62s %s' "$1" "$2")")
    printf '%s → %s\n' "$1" "$2"
}

# outcome_of TEST: runs it, and says "ok", "FAILED" or nothing, when it did not come to a result.
outcome_of() {
    "$cargo" test --locked --test "$1" >"$copy/output" 2>&1 || true
    sed -n 's/^test result: \([A-Za-z]*\)\..*/\1/p' "$copy/output" | tail -n 1
}

# weaken NAME TEST FILE OLD NEW: with OLD replaced by NEW in FILE, TEST must fail.
weaken() {
    local name=$1 test=$2 file=$3 old=$4 new=$5 source without
    if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $name "* ]]; then
        return
    fi
    if [[ $baseline != *" $test "* ]]; then
        if [[ $(outcome_of "$test") != ok ]]; then
            cat "$copy/output"
            echo "the test $test fails without any weakening"
            exit 1
        fi
        baseline+="$test "
    fi
    source=$(<"$file")
    without=${source/"$old"/}
    if [[ $source == "$without" || ${without/"$old"/} != "$without" ]]; then
        note "$name" "TEXT NOT FOUND EXACTLY ONCE in $file"
        failed=1
        return
    fi
    printf '%s\n' "${source/"$old"/"$new"}" >"$file"
    case $(outcome_of "$test") in
        FAILED) note "$name" "caught by $test" ;;
        ok)
            note "$name" "NOT CAUGHT by $test"
            failed=1
            ;;
        *)
            cat "$copy/output"
            note "$name" "DOES NOT BUILD, or the test does not end"
            failed=1
            ;;
    esac
    printf '%s\n' "$source" >"$file"
}

source "$root/tests/weakenings/list.sh"

printf '\n'
printf '%s\n' "${results[@]}"
if ((${#wanted[@]} && ${#results[@]} != ${#wanted[@]})); then
    echo "not every name that was given is that of a weakening"
    failed=1
fi
exit "$failed"
