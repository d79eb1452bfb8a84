package agrenting_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// fullStatus has a value in each field.
func fullStatus() agrenting.Status {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.FixedZone("", 3600))
	return agrenting.Status{
		State: agrenting.StateFailing, Source: "AGRENTING_API_KEY", Origin: "https://agrenting.com", AgentID: "agent-1",
		Environment: agrenting.Production, Kind: agrenting.KindAPIKey, Generation: 2, Fingerprint: "sha256:b",
		Expires: at, NextRenewal: at, Fetching: true, Waiters: 3, LastError: errors.New("away"), Failures: 4, RetryAt: at,
		Key: agrenting.KeyStatus{
			Fingerprint: "sha256:a", Generation: 5, Created: at, Expires: at, Age: 36 * time.Hour, Due: at, Overdue: true, Rotating: true,
			LastRotation: at, LastError: errors.New("GET https://vault.example/v1?q=secret: 403"), Failures: 6, RetryAt: at,
		},
		Store: "agrenting.FileStore(/var/lib/writer)", StoreError: errors.New("disk full"), ClockSkew: 1500 * time.Millisecond,
		Rate: agrenting.Rate{Known: true, Limit: 100, Remaining: 7, RetryAfter: 2 * time.Second},
	}
}

const fullStatusJSON = `{"state":"failing","source":"AGRENTING_API_KEY","origin":"https://agrenting.com","agent_id":"agent-1",` +
	`"environment":"production","kind":"api_key","generation":2,"fingerprint":"sha256:b","expires":"2026-01-02T02:04:05.6Z",` +
	`"next_renewal":"2026-01-02T02:04:05.6Z","fetching":true,"waiters":3,"failures":4,"last_error":"away",` +
	`"retry_at":"2026-01-02T02:04:05.6Z","key":{"fingerprint":"sha256:a","generation":5,"created":"2026-01-02T02:04:05.6Z",` +
	`"expires":"2026-01-02T02:04:05.6Z","age":"36h0m0s","due":"2026-01-02T02:04:05.6Z","overdue":true,"rotating":true,` +
	`"last_rotation":"2026-01-02T02:04:05.6Z","failures":6,"last_error":"GET https://vault.example/v1: 403",` +
	`"retry_at":"2026-01-02T02:04:05.6Z"},"store":"agrenting.FileStore(/var/lib/writer)","store_error":"disk full",` +
	`"clock_skew":"1.5s","rate":{"limit":100,"remaining":7,"retry_after":"2s"}}`

func TestStatus_marshalJSON(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		value any
		want  string
	}{
		"everything":      {fullStatus(), fullStatusJSON},
		"a pointer":       {new(fullStatus()), fullStatusJSON},
		"nothing":         {agrenting.Status{}, `{"state":"","generation":0,"fetching":false,"waiters":0,"failures":0}`},
		"no key":          {agrenting.KeyStatus{}, `{}`},
		"an empty event":  {agrenting.Event{}, `{}`},
		"another session": {agrenting.Event{Generation: 1, Kind: agrenting.KindSession, Fingerprint: "sha256:c"}, `{"generation":1,"kind":"session","credential":"sha256:c"}`},
		"an event": {
			agrenting.Event{
				Time: time.Unix(0, 0), Type: agrenting.EventRenewalFailed, Reason: "early", Generation: 2, Kind: agrenting.KindUserToken,
				Fingerprint: "sha256:b", Previous: "sha256:a", Expires: time.Unix(1, 0), Took: 1500 * time.Millisecond,
				Err: errors.New("got sk_sandbox_Zq7Wm3Xp9Rt5"), RetryAt: time.Unix(2, 0),
			},
			`{"time":"1970-01-01T00:00:00Z","type":"renewal failed","reason":"early","generation":2,"kind":"user_token",` +
				`"credential":"sha256:b","previous":"sha256:a","expires":"1970-01-01T00:00:01Z","took":"1.5s","error":"got [redacted]",` +
				`"retry_at":"1970-01-01T00:00:02Z"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := json.Marshal(c.value)
			require.NoError(t, err)
			assert.Equal(t, c.want, string(got))
			var decoded map[string]any
			require.NoError(t, json.Unmarshal(got, &decoded))
		})
	}
}

// A field that is added to a struct must not be missing in its JSON.
func TestStatus_marshalJSON_complete(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		value any
		fewer int // fields that are not shown
	}{
		"status": {fullStatus(), 0}, "key": {fullStatus().Key, 0}, "rate": {fullStatus().Rate, 1}, // Known
		"event": {agrenting.Event{}, 0},
	} {
		fields := reflect.TypeOf(c.value).NumField()
		var shown map[string]any
		switch name {
		case "event":
			e := agrenting.Event{
				Time: time.Unix(0, 0), Type: "t", Reason: "r", Generation: 1, Kind: agrenting.KindAPIKey, Fingerprint: "f", Expires: time.Unix(0, 0),
				Previous: "p", Took: time.Second, Err: io.EOF, RetryAt: time.Unix(0, 0),
			}
			b, err := json.Marshal(e)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(b, &shown))
		default:
			b, err := json.Marshal(fullStatus())
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(b, &shown))
			if inner, ok := shown[name].(map[string]any); ok {
				shown = inner
			}
		}
		assert.Len(t, shown, fields-c.fewer, name)
	}
}

// The logs have the same names and values.
func TestStatus_logValue(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("probe", "status", fullStatus(), "key", fullStatus().Key)
	var rec struct{ Status, Key json.RawMessage }
	require.NoError(t, json.Unmarshal(out.Bytes(), &rec))
	assert.JSONEq(t, fullStatusJSON, string(rec.Status))
	key, err := json.Marshal(fullStatus().Key)
	require.NoError(t, err)
	assert.JSONEq(t, string(key), string(rec.Key))
	out.Reset()
	slog.New(slog.NewTextHandler(&out, nil)).Info("probe", "status", fullStatus())
	assert.Contains(t, out.String(), "status.key.overdue=true")
}

func TestStatus_errorOfASource_inJSON(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing")
	c := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, `{}`), agrenting.FileSource(path))
	_, err := c.Credential(t.Context())
	require.Error(t, err)
	b, err := json.Marshal(c.Status())
	require.NoError(t, err)
	var s map[string]any
	require.NoError(t, json.Unmarshal(b, &s))
	assert.Contains(t, s["last_error"], "missing")
	assert.NotContains(t, string(b), "0001-01-01")
}

const loggingChildVar = "AGRENTING_TEST_LOGGING_CHILD"

// init comes before TestMain and its flags.
func init() { //nolint:gochecknoinits // a re-executed binary makes one request, and tests nothing
	url, ok := os.LookupEnv(loggingChildVar)
	if !ok {
		return
	}
	opts := []agrenting.Option{agrenting.WithBaseURL(url), agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey))}
	if os.Getenv(loggingChildVar+"_LOGGER") != "" {
		opts = append(opts, agrenting.WithLogger(slog.New(slog.DiscardHandler)))
	}
	c, err := agrenting.New(opts...)
	if err == nil {
		_, err = c.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		_, _ = os.Stdout.WriteString(err.Error())
	}
	os.Exit(0)
}

func TestLogVariable_program(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) }))
	t.Cleanup(srv.Close)
	exe, err := os.Executable()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		vars []string
		logs bool
		// warns is part of the only warning; empty: there is none.
		warns string
	}{
		"not set":      {},
		"debug":        {vars: []string{"AGRENTING_LOG=debug"}, logs: true},
		"upper case":   {vars: []string{"AGRENTING_LOG=DEBUG"}, logs: true},
		"info":         {vars: []string{"AGRENTING_LOG=info"}},
		"own logger":   {vars: []string{"AGRENTING_LOG=debug", loggingChildVar + "_LOGGER=1"}},
		"not a level":  {vars: []string{"AGRENTING_LOG=yes"}, warns: `AGRENTING_LOG is \"yes\" (want \"debug\", \"info\", \"warn\", \"error\", or \"off\")`},
		"white space":  {vars: []string{"AGRENTING_LOG= "}, warns: "AGRENTING_LOG is"},
		"a secret":     {vars: []string{"AGRENTING_LOG=" + sdktest.TestKey}, warns: "a value of"},
		"off":          {vars: []string{"AGRENTING_LOG=Off"}},
		"none":         {vars: []string{"AGRENTING_LOG=none"}},
		"zero":         {vars: []string{"AGRENTING_LOG=0"}},
		"overruled":    {vars: []string{"AGRENTING_LOG=yes", loggingChildVar + "_LOGGER=1"}},
		"empty is off": {vars: []string{"AGRENTING_LOG="}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(append(os.Environ(), loggingChildVar+"="+srv.URL), c.vars...)
			var out, logs strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &logs
			require.NoError(t, cmd.Run())
			assert.Empty(t, out.String())
			assert.Contains(t, logs.String(), c.warns)
			assert.Equal(t, c.warns != "", strings.Count(logs.String(), "level=WARN") == 1, logs.String())
			assert.Equal(t, c.logs, strings.Contains(logs.String(), `level=DEBUG msg="agrenting: request"`), logs.String())
			sdktest.AssertNoSecret(t, logs.String(), sdktest.TestKey)
		})
	}
}

func TestMessages_areDistinctForEachEvent(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	types := []agrenting.EventType{
		agrenting.EventRenewed, agrenting.EventRejected, agrenting.EventConfirmed, agrenting.EventRenewalFailed, agrenting.EventRotating,
		agrenting.EventRotated, agrenting.EventRotationFailed, agrenting.EventKeyOld, agrenting.EventStoreFailed,
	}
	for _, e := range types {
		m := agrenting.MessageOf(e)
		assert.True(t, strings.HasPrefix(m, "agrenting: "), "%s", e)
		seen[m] = true
	}
	assert.Len(t, seen, len(types))
}
