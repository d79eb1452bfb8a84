package main

import (
	"bytes"
	"os"
	"testing"
)

func TestTheProgramIsTheOneInTheREADME(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(readme, program)
	if at < 0 {
		t.Fatal("README.md does not have this program, character for character")
	}
	call := at + bytes.Index(program, []byte("agrenting.New()"))
	if line := bytes.Count(readme[:call], []byte("\n")) + 1; line >= 40 {
		t.Errorf("the first call is on line %d of README.md, and should come before line 40", line)
	}
}
