package main

import (
	"runtime"
	"runtime/debug"

	"github.com/agrenting/agrenting-go"
)

type versionCmd struct{}

type jsonVersion struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	System  string `json:"system"`
	Commit  string `json:"commit,omitempty"`
}

// Run shows the version.
func (versionCmd) Run(a *app) error { //nolint:unparam // kong wants it so
	v := jsonVersion{Version: agrenting.Version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	if a.JSON {
		encode(a.out, v)
		return nil
	}
	a.ui.line("agrenting %s (%s, %s)", v.Version, v.Go, v.System)
	return nil
}
