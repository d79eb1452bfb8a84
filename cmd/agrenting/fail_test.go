package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

// identifiers of the SDK, as its errors name them.
var identifiers = regexp.MustCompile(`\b(With[A-Z]\w*|\w+Policy\b|New[A-Z]\w+|RawResponse|InPlace|Overlap|Parse[A-Z]\w+|Client\.[A-Z]\w*|` +
	`Call[A-Z]\w+|FileStore|Namespace|TokenRequest|CredentialSourceFunc|GetBody|Sealed|SealingKey\.\w+|MaxAttempts)\b`)

// beyondCommands matches texts that the command line cannot show: those of options and values
// that it does not use.
var beyondCommands = regexp.MustCompile(`^(agrenting: (a|the|New)\w* |agrenting\.|With(APIKeyHeader|AllowedOrigins|CredentialSource|Store|LookupEnv|Observer|RetryPolicy|` +
	`Rotation|Routes|Transport|UserAgent)\b|%w: the zero Credential|RetryPolicy|RotationPolicy|MaxAttempts|` +
	`Sealed$|New$|Namespace|FileStore|a field is negative|the key is older than 90 days)|` +
	`Add (the|that) origin to|This is a WebSocket handshake|address of an agrentingtest server|` +
	`GetBody|SealingKey|WithClientSideKeys|CredentialSourceFunc|RotationPolicy.AgentID is needed|is not encrypted. To seal it|it needs WithStore|neither Overlap nor InPlace`)

// TestErrorsOfTheSDKSpeakOfFlags reads the SDK's source. It fails if the SDK
// has a text that names an option and the command line does not translate it.
func TestErrorsOfTheSDKSpeakOfFlags(t *testing.T) {
	t.Parallel()

	files, err := filepath.Glob("../../*.go")
	require.NoError(t, err)
	more, err := filepath.Glob("../../internal/*/*.go")
	require.NoError(t, err)
	files = append(files, more...)
	if len(files) == 0 {
		t.Skip("the SDK is not beside this module")
	}
	seen := 0
	var said strings.Builder
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "sdktest") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, ok := literal(e)
			said.WriteString(text + "\n")
			if ok && identifiers.MatchString(text) && strings.Contains(text, " ") && !beyondCommands.MatchString(text) {
				seen++
				got := textOf(errors.New("state. " + text))
				assert.Empty(t, identifiers.FindAllString(got, -1), "%s: %q becomes %q", filepath.Base(path), text, got)
			}
			return !ok
		})
	}
	assert.Greater(t, seen, 10)
	for i := 0; i < len(phrases); i += 2 {
		assert.Contains(t, said.String(), strings.TrimLeft(phrases[i], ".; "), "the SDK does not say this any more")
	}
}

// literal returns the text of a string, or of a concatenation of strings.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		x, left := literal(e.X)
		y, right := literal(e.Y)
		return x + y, e.Op == token.ADD && left && right
	default:
		return "", false
	}
}

func TestErrorsSayThingsOnce(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		status     int
		code, want string
	}{
		{http.StatusUnauthorized, "UNAUTHORIZED", "GET /: 401 Unauthorized: no"},
		{http.StatusNotFound, "NOT_FOUND", "GET /: 404 Not Found: no"},
		{http.StatusNotFound, "ROUTE_NOT_FOUND", "GET /: 404 Not Found ROUTE_NOT_FOUND: no"},
		{http.StatusTooManyRequests, "RATE_LIMITED", "GET /: 429 Too Many Requests RATE_LIMITED: no"},
		{http.StatusUnauthorized, "", "GET /: 401 Unauthorized: no"},
	} {
		err := &agrenting.APIError{Method: http.MethodGet, Path: "/", StatusCode: c.status, Code: c.code, Message: "no"}
		assert.Equal(t, c.want, textOf(err))
	}
}

func TestErrorsNameNoTypesOfGo(t *testing.T) {
	t.Parallel()

	type plain struct {
		ID   string   `json:"id"`
		List []string `json:"list"`
		In   struct {
			X string `json:"x"`
		} `json:"in"`
	}
	for text, want := range map[string]string{
		`{"id":1}`:       "the field id has an unexpected type (number)",
		`{"list":true}`:  "the field list has an unexpected type (bool)",
		`{"in":{"x":1}}`: "the field in.x has an unexpected type (number)",
		`[]`:             "the data has an unexpected type (array)",
	} {
		var p plain
		err := json.Unmarshal([]byte(text), &p)
		require.Error(t, err)
		assert.Equal(t, want, textOf(err))
	}
}

func TestUnreadableKeyFileHasRemedy(t *testing.T) {
	t.Parallel()

	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, nil, 0o600))
	for name, c := range map[string]struct {
		file  string
		cause error
		want  string
	}{
		"unreadable": {key, fs.ErrPermission, readHint(key)},
		"missing":    {key, fs.ErrNotExist, "put the credential there"},
		"other":      {key, fs.ErrInvalid, ""},
		"no file":    {"", fs.ErrPermission, ""},
	} {
		a := &app{ctx: t.Context(), globals: globals{KeyFile: c.file}}
		a.lookup = func(string) (string, bool) { return "", false }
		e := a.classify(fmt.Errorf("%w: the key file: %w", agrenting.ErrInvalidCredential, c.cause))
		assert.Equal(t, codeCredential, e.code, name)
		assert.True(t, strings.HasPrefix(e.hint, c.want) && (c.want == "") == (e.hint == ""), "%s: %q", name, e.hint)
	}
}

func TestUncheckableOutHasRemedy(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := secretFlags{Out: filepath.Join(file, "secret")}.open(true)
	e, ok := errors.AsType[*cliError](err)
	require.True(t, ok, err)
	assert.NotEmpty(t, e.hint)
}

// TestRescuedKeepsTheSecretWithTheStore covers a rotation without --out and
// --show whose store could not be written.
func TestRescuedKeepsTheSecretWithTheStore(t *testing.T) {
	t.Parallel()

	store := filepath.Join(t.TempDir(), "keys")
	path, err := rescued(store, "made-up")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(path, store+".rescued-"), "the folder is missing: %s", path)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "made-up\n", string(text))
	require.NoError(t, os.Mkdir(store, 0o700))
	other, err := rescued(store, "made-up")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(other, filepath.Join(store, "rescued-")), other)
	_, err = rescued(filepath.Join(store, "nowhere", "keys"), "made-up")
	require.Error(t, err)
	_, err = rescued("", "made-up")
	require.Error(t, err)
}
