package main

import (
	"strings"
	"testing"
)

func TestTheProgramRuns(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil || out.String() != "ok\n" {
		t.Fatalf("%q, %v", out.String(), err)
	}
}
