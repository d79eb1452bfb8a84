package main

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/agrenting/agrenting-go"
)

// version is set by the linker in the programs of a release, see
// docs/releasing.md.
var version string

type versionCmd struct{}

type jsonVersion struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	System  string `json:"system"`
	Commit  string `json:"commit,omitempty"`
}

// Run shows the version.
func (versionCmd) Run(a *app) error { //nolint:unparam // every command has this method
	info, _ := debug.ReadBuildInfo()
	v := jsonVersion{Version: versionOf(version, info), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	if a.JSON {
		a.encode(v)
		return nil
	}
	a.ui.line("agrenting %s (%s, %s)", v.Version, v.Go, v.System)
	return nil
}

// versionOf returns the version that the linker has set, else the version of go install. In a
// build of a checkout without either, it returns the version of the SDK.
func versionOf(stamped string, info *debug.BuildInfo) string {
	if stamped == "" && info != nil && info.Main.Version != "(devel)" {
		stamped = info.Main.Version
	}
	if stamped == "" {
		return agrenting.Version
	}
	return strings.TrimPrefix(stamped, "v")
}
