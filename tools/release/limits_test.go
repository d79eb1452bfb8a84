package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCheckSize(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "program")
	if err := checkSize(binary, 10); err == nil {
		t.Error("there is no program")
	}
	if err := os.WriteFile(binary, make([]byte, 10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkSize(binary, 10); err != nil {
		t.Error(err)
	}
	if err := checkSize(binary, 9); err == nil {
		t.Error("10 bytes are more than 9")
	}
}

func TestCheckStart(t *testing.T) {
	t.Parallel()
	// Any program will do that ignores its argument or takes it for a command of its own.
	if err := checkStart(t.Context(), "go", time.Minute); err != nil {
		t.Error(err)
	}
	if err := checkStart(t.Context(), "go", -1); err == nil {
		t.Error("no program takes less than nothing")
	}
	if err := checkStart(t.Context(), filepath.Join(t.TempDir(), "program"), time.Minute); err == nil {
		t.Error("there is no program")
	}
}
