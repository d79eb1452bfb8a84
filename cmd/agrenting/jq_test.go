package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func filtering(ctx context.Context, t *testing.T, expr string, v any) (out string, err error) {
	t.Helper()
	filter, err := newFilter(expr)
	require.NoError(t, err)
	var b strings.Builder
	a := &app{ctx: ctx, streams: streams{out: &b}, stdout: &outlet{to: &b}, filter: filter}
	a.ui = &printer{out: &b}
	a.encode(v)
	return b.String(), a.filterErr
}

func TestFilterResults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ expr, input, want string }{
		{".", `{"b":1,"a":"<x>"}`, `{"a":"<x>","b":1}` + "\n"},
		{".id", `{"id":12345678901234567890}`, "12345678901234567890\n"},
		{".id", `{"id":1e3}`, "1e3\n"},
		{".[]", `["a\nb","c"]`, "a\nb\nc\n"},
		{".[] | halt", `[1,2]`, ""},
		{"@tsv", `["a","b"]`, "a\tb\n"},
	} {
		got, err := filtering(t.Context(), t, tc.expr, json.RawMessage(tc.input))
		require.NoError(t, err, tc.expr)
		assert.Equal(t, tc.want, got, tc.expr)
	}
}

func TestFilterErrorShowsNoInput(t *testing.T) {
	t.Parallel()
	const fixed = "--jq failed: the filter does not fit the output"
	for expr, want := range map[string]string{
		".secret | keys":                       fixed,
		".secret[]":                            fixed + ": cannot iterate over: string",
		".secret.id":                           fixed + ": expected an object but got: string",
		"{} | .[0]":                            fixed + ": expected an array but got: object",
		"error(.secret)":                       fixed,
		"error(.)":                             fixed,
		".secret | halt_error":                 fixed,
		".secret - 1":                          fixed,
		".secret | fromjson":                   fixed,
		".secret | tonumber":                   fixed,
		".secret as $s | {} | .[$s | keys]":    fixed,
		`.secret as $s | "x" | test("[" + $s)`: fixed,
		`"cannot iterate over: string " + .secret | error`: fixed,
	} {
		_, err := filtering(t.Context(), t, expr, json.RawMessage(`{"secret":"s3cr3t"}`))
		require.EqualError(t, err, want, expr)
	}
}

func TestFilterEndsWithItsReader(t *testing.T) {
	t.Parallel()
	filter, err := newFilter("repeat(1)")
	require.NoError(t, err)
	out := &outlet{to: refusing{}}
	a := &app{ctx: t.Context(), streams: streams{out: out}, stdout: out, filter: filter, ui: &printer{out: out}}
	a.encode(1)
	require.NoError(t, a.filterErr)
}

// refusing is the output after its reader has exited.
type refusing struct{}

func (refusing) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestFilterEndsWithTheRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := filtering(ctx, t, "last(repeat(1))", 1)
	require.ErrorIs(t, err, context.Canceled)
}

func TestVisibleLines(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "a\tb\n [31mc", visibleLines("a\tb\n\x1b[31mc"))
}
