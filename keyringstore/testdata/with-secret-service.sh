#!/bin/sh
#
# Runs a command in a separate session that has a D-Bus and an unlocked GNOME
# Keyring, in a home folder that is deleted afterwards. Nothing of the user's own
# keyring is touched.
#
#   testdata/with-secret-service.sh go test ./...
#
# It needs dbus-run-session and gnome-keyring-daemon, on Debian the packages dbus
# and gnome-keyring.

set -eu

for program in dbus-run-session gnome-keyring-daemon; do
	command -v "$program" >/dev/null || {
		echo "$program is missing" >&2
		exit 69
	}
done

# What Go keeps stays where it is.
GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE) GOPATH=$(go env GOPATH)
export GOCACHE GOMODCACHE GOPATH

home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
mkdir -m 700 "$home/runtime"

unset DISPLAY WAYLAND_DISPLAY DBUS_SESSION_BUS_ADDRESS
export HOME="$home" XDG_RUNTIME_DIR="$home/runtime" XDG_CONFIG_HOME="$home/config" \
	XDG_DATA_HOME="$home/data" XDG_CACHE_HOME="$home/cache" AGRENTING_TEST_KEYRING=1

dbus-run-session -- sh -c '
	set -eu
	# The first password makes the login keyring.
	printf %s test | gnome-keyring-daemon --unlock --components=secrets >/dev/null
	"$@"
' sh "$@"
