#!/usr/bin/env bash
# Proves the tests, of durability and of the groups below: weakens the node in one place at a time, and expects a test to notice.
#
#   tests/weakenings/run.sh             all weakenings
#   tests/weakenings/run.sh NAME...     these alone
#   tests/weakenings/run.sh --group GROUP     those of a group: supervision, looking, gossip
#   tests/weakenings/run.sh --record ...       the same, and what came of each goes into results.txt beside this script
#   tests/weakenings/run.sh --texts     only whether each text is found exactly once; runs no test
#
# Works on a copy of the sources, in a temporary directory. Exits with 1 when a weakening goes unnoticed, when its text is
# no longer found exactly once in the source, or when the tests fail without any. CARGO names another cargo.
# WEAKENING_SECONDS is how long a test may run before it counts as hanging, which is noticed too.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cargo=${CARGO:-cargo}
seconds=${WEAKENING_SECONDS:-600}
# A failure is to be found, not explained; and none is to be found because an earlier weakening left its example.
export RUST_BACKTRACE=0 PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=true
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/weakenings
export CARGO_PROFILE_DEV_DEBUG=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
output=$work/output
mkdir "$work/original"
for part in Cargo.toml Cargo.lock build.rs proto src tests benches config.toml; do
    cp -R "$root/$part" "$work/original/"
done
cp -R "$work/original" "$work/copy"
cd "$work/copy"

record=
if [[ ${1:-} == --record ]]; then
    record=$root/tests/weakenings/results.txt
    shift
fi
texts_only=
if [[ ${1:-} == --texts ]]; then
    texts_only=yes
    shift
fi
if [[ -z $texts_only ]]; then
    # Two copies of the sources build under the same names: one run would test what the other has built.
    mkdir -p "$CARGO_TARGET_DIR"
    exec 9>"$CARGO_TARGET_DIR/running"
    if ! flock --nonblock 9; then
        echo "another run builds in $CARGO_TARGET_DIR: wait for its end, or set CARGO_TARGET_DIR to another directory"
        exit 1
    fi
fi
# group NAME: the weakenings that follow are of this group; without a name, of none.
group() {
    current_group=${1:-}
}
current_group=
wanted_group=
if [[ ${1:-} == --group ]]; then
    wanted_group=${2:?which group?}
    shift 2
fi
wanted=("$@")
baseline=" "
results=()
failed=0

note() {
    results+=("$(printf '%-62s %s' "$1" "$2")")
    if [[ -n $record ]]; then
        # In the place of what came of it before.
        { grep -v "^$1 " "$record" || true; } >"$work/record"
        { cat "$work/record" && printf '%-62s %s\n' "$1" "$2"; } | LC_ALL=C sort >"$record"
    fi
    printf '%s → %s\n' "$1" "$2"
}

# outcome_of TEST: runs it (lib: the tests within the sources), and says "ok", "FAILED", "hangs", "unbuilt", or nothing, when it
# did not come to a result.
outcome_of() {
    local which=(--test "$1")
    [[ $1 != lib ]] || which=(--lib)
    # Most of the time goes into building the node anew, so it is not optimised; but for a test that computes for long.
    export CARGO_PROFILE_DEV_OPT_LEVEL=0
    [[ $1 != crash_states ]] || CARGO_PROFILE_DEV_OPT_LEVEL=1
    # Built apart, so that the limit is one for the test alone.
    if ! "$cargo" test --locked --no-run "${which[@]}" >"$output" 2>&1; then
        echo unbuilt
        return
    fi
    local status=0
    timeout --kill-after=10 "$seconds" "$cargo" test --locked "${which[@]}" >"$output" 2>&1 || status=$?
    # 137: it did not heed the first signal.
    if ((status == 124 || status == 137)); then
        echo hangs
    else
        sed -n 's/^test result: \([A-Za-z]*\)\..*/\1/p' "$output" | tail -n 1
    fi
}

# failed_tests: the names of those that failed in the last run.
failed_tests() {
    sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output" | sed 's/ - should panic$//' | sort | paste -sd ' '
}

# is_there_once FILE TEXT
is_there_once() {
    local source without
    source=$(<"$1")
    without=${source/"$2"/}
    [[ $source != "$without" && ${without/"$2"/} == "$without" ]]
}

# restore FILE...: puts them back as they were.
restore() {
    local file
    for file in "$@"; do
        # Not with its old time: it would seem to be built already.
        cat "$work/original/$file" >"$file"
    done
}

# weaken NAME TEST (FILE OLD NEW)...: with each OLD replaced by NEW in its FILE, TEST must fail.
weaken() {
    local name=$1 test=$2 source changed=()
    shift 2
    if [[ -n $wanted_group && $current_group != "$wanted_group" ]]; then
        return
    fi
    if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $name "* ]]; then
        return
    fi
    if [[ -z $texts_only && $baseline != *" $test "* ]]; then
        if [[ $(outcome_of "$test") != ok ]]; then
            cat "$output"
            echo "the test $test fails without any weakening"
            exit 1
        fi
        baseline+="$test "
    fi
    while (($#)); do
        if [[ ! -f $1 ]] || ! is_there_once "$1" "$2"; then
            note "$name" "TEXT NOT FOUND EXACTLY ONCE in $1"
            failed=1
            restore "${changed[@]}"
            return
        fi
        source=$(<"$1")
        changed+=("$1")
        printf '%s\n' "${source/"$2"/"$3"}" >"$1"
        shift 3
    done
    if [[ -n $texts_only ]]; then
        note "$name" "found"
        restore "${changed[@]}"
        return
    fi
    case $(outcome_of "$test") in
        FAILED) note "$name" "caught by $test: $(failed_tests)" ;;
        hangs) note "$name" "caught by $test, which hangs" ;;
        ok)
            note "$name" "NOT CAUGHT by $test"
            failed=1
            ;;
        unbuilt)
            cat "$output"
            note "$name" "DOES NOT BUILD"
            failed=1
            ;;
        *)
            cat "$output"
            note "$name" "THE TEST $test COMES TO NO RESULT"
            failed=1
            ;;
    esac
    restore "${changed[@]}"
}

source "$work/original/tests/weakenings/list.sh"

printf '\n'
printf '%s\n' "${results[@]}"
if [[ -n $wanted_group ]] && ((${#results[@]} == 0)); then
    echo "there is no group $wanted_group"
    failed=1
fi
if ((${#wanted[@]} && ${#results[@]} != ${#wanted[@]})); then
    echo "not every name that was given is that of a weakening"
    failed=1
fi
exit "$failed"
