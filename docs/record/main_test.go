package main

import (
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestALineIsSplitByItsStyles(t *testing.T) {
	t.Parallel()
	cases := map[string][]span{
		"":                           nil,
		"plain":                      {{"", "plain"}},
		"\x1b[1mbold\x1b[0m plain":   {{"b", "bold"}, {"", " plain"}},
		"  \x1b[36m->\x1b[m GET":     {{"", "  "}, {"c", "->"}, {"", " GET"}},
		"\x1b[32m\x1b[2mdim at once": {{"d", "dim at once"}},
	}
	for line, want := range cases {
		got, err := parse(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
	if _, err := parse("\x1b[5mblinking"); err == nil {
		t.Error("an unknown style passes")
	}
}

func TestThePictureIsXMLWithAllText(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := record(strings.NewReader("a <b> & \x1b[1m\"c\"\x1b[0m\r\n\r\nend\n"), &out, "go run ."); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for d := xml.NewDecoder(strings.NewReader(out.String())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, out.String())
		}
		if chars, ok := token.(xml.CharData); ok {
			text.Write(chars)
		}
	}
	for _, want := range []string{"$ go run .", `a <b> & "c"`, "end"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in %q", want, text.String())
		}
	}
}

func TestAFailedWriteIsReported(t *testing.T) {
	t.Parallel()
	if err := record(strings.NewReader("x\n"), full{}, ""); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
