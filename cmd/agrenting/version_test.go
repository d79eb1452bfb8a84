package main

import (
	"runtime/debug"
	"testing"

	"github.com/agrenting/agrenting-go"
)

func TestVersionComesFromReleaseOrModule(t *testing.T) {
	t.Parallel()

	installed := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}
	devel := &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}
	for name, c := range map[string]struct {
		stamped string
		info    *debug.BuildInfo
		want    string
	}{
		"of a release":            {"v2.0.0", installed, "2.0.0"},
		"by go install":           {"", installed, "1.2.3"},
		"in a checkout":           {"", devel, agrenting.Version},
		"without a word":          {"", &debug.BuildInfo{}, agrenting.Version},
		"without any information": {"", nil, agrenting.Version},
	} {
		if got := versionOf(c.stamped, c.info); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
