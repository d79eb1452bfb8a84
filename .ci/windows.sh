#!/usr/bin/env bash
#
# Runs Windows programs under Wine: the examples, and a session of the command
# line with a sandbox and a store in a folder.
#
#   .ci/windows.sh WINE FOLDER
#
# WINE is Wine's loader. FOLDER has quickstart.exe, rotation.exe, agrenting.exe and
# bcryptprimitives.dll; everything else goes there, too. The caller removes it.

set -Eeuo pipefail
exec </dev/null
wine=$1
cd "$2"

server=$(dirname "$wine")/wineserver
[ -x "$server" ] || server=wineserver
export WINEPREFIX=$PWD/prefix WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml,winemenubuilder.exe="
unset DISPLAY WAYLAND_DISPLAY

# Ends everything that runs in the prefix, and waits for the end.
finish() {
	local status=$?
	trap - EXIT
	timeout 60 "$server" -k || true
	timeout 60 "$server" -w || true
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
	printf 'error: under Wine: %s\n' "$*" >&2
	exit 1
}

# windows PROGRAM ARGUMENT… runs a program and keeps what it prints in out and err.
windows() {
	local program=$1
	shift
	timeout 120 "$wine" "$program.exe" "$@" >out 2>err
}

# show prints what the last program has printed.
show() {
	sed 's/^/  /' out err >&2
}

# shows TEXT: the last program has printed it.
shows() {
	if ! grep -qF -- "$1" out; then
		show
		fail "\"$1\" is missing in this output"
	fi
}

# agrenting ARGUMENT… runs the command line, which has to succeed.
agrenting() {
	echo "agrenting.exe $*"
	if ! windows agrenting "$@"; then
		show
		fail "agrenting.exe $* has failed"
	fi
}

"$wine" --version
if ! timeout 300 "$wine" wineboot --init >out 2>&1; then
	cat out
	fail "no prefix could be made"
fi
if [ ! -e prefix/drive_c/windows/system32/bcryptprimitives.dll ]; then
	cp bcryptprimitives.dll prefix/drive_c/windows/system32/
fi

echo "quickstart.exe"
if ! windows quickstart; then
	show
	fail "quickstart.exe has failed"
fi
shows "steps worked as expected."

# Its leases last a second, so a rotation may fail on a machine that is busy with
# something else. A request may not.
for try in 1 2 3; do
	echo "rotation.exe -duration 3s"
	status=0
	windows rotation -duration 3s || status=$?
	shows " requests, 0 failed"
	if [ "$status" -eq 0 ]; then
		break
	fi
	show
	if [ "$try" -eq 3 ] || ! grep -q "deadline exceeded\|within 30 s" err; then
		fail "rotation.exe has failed"
	fi
	echo "once more: a rotation took too long"
done
grep " requests, 0 failed" out | tail -n 1
shows ", 1 live"

agrenting version
shows "windows/amd64"

echo "agrenting.exe sandbox --env-file sandbox.env"
"$wine" agrenting.exe sandbox --env-file sandbox.env >sandbox.log 2>&1 &
for ((i = 0; i < 600; i++)); do
	if [ -e sandbox.env ]; then
		break
	fi
	sleep 0.1
done
if [ ! -e sandbox.env ]; then
	cat sandbox.log
	fail "the sandbox does not serve within a minute"
fi
# shellcheck source=/dev/null
. ./sandbox.env

agrenting doctor
shows "No problems found."
agrenting whoami
shows "$AGRENTING_AGENT_ID"
agrenting keys list
shows "in use"
agrenting request POST /api/v1/tasks -f "agent_id=$AGRENTING_AGENT_ID" -f task_type=writing
shows '"status": "pending"'

# A store in a folder, first alone, then with three processes at the same time.
agrenting keys rotate --store keys --yes
shows "generation  2"
agrenting keys rotate --store keys --yes --strategy inplace
shows "generation  3"
echo "three of: agrenting.exe keys rotate --store keys --yes"
pids=""
for i in 1 2 3; do
	timeout 120 "$wine" agrenting.exe keys rotate --store keys --yes >"rotate$i" 2>&1 &
	pids="$pids $!"
done
i=0
for pid in $pids; do
	i=$((i + 1))
	if ! wait "$pid"; then
		cat "rotate$i"
		fail "a rotation beside others has failed"
	fi
done
agrenting whoami --store keys
shows "$AGRENTING_AGENT_ID"
agrenting request GET "/api/v1/agents/$AGRENTING_AGENT_ID" --store keys
shows '"name": "Scribe"'
agrenting doctor --store keys
shows "No problems found."
agrenting keys list --store keys
shows "in use"
if [ "$(grep -c " live \| in use " out)" -ne 1 ]; then
	show
	fail "there should be one live key"
fi
ls -A keys
if compgen -G 'keys/.*.tmp-*' >/dev/null; then
	fail "temporary files were left in the store"
fi

# The initial key was replaced.
if windows agrenting whoami; then
	show
	fail "the initial key is still valid"
fi
