package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// secretLike finds keys and tokens of the embedded platform: forty hex digits,
// with or without a mark. Fingerprints and ids are shorter.
var secretLike = regexp.MustCompile(`[0-9a-f]{17,}|ap_[0-9a-z]|sk_[0-9a-z]`)

func environment(vars map[string]string) lookupFunc {
	return func(name string) (string, bool) {
		value, found := vars[name]
		return value, found
	}
}

func TestEachStepSucceeds(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out, environment(map[string]string{"AGRENTING_API_KEY": ""})); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"\n1  ", "\n2  ", "\n3  ", "\n4  ", "\n5  ", "\n6  ", "\n7  ",
		"X-API-Key: sha256:", "Authorization: Bearer sha256:", "X-Agent-ID: ", "ErrEnvironmentMismatch",
		"no credential", "ErrForeignOrigin", "<- 401 ", "<- 404  NOT_FOUND", "All 7 steps",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the output:\n%s", want, out.String())
		}
	}
	if found := secretLike.FindString(out.String()); found != "" {
		t.Errorf("the output has a secret, %q:\n%s", found, out.String())
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("the output has colors, but is not a terminal")
	}
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(line)); n > 120 {
			t.Errorf("a line of %d characters: %s", n, line)
		}
	}
}

func TestARealPlatformIsOnlyRead(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	defer srv.Close()
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	key := srv.NewKey(agent.ID)

	var out bytes.Buffer
	err := run(t.Context(), &out, environment(map[string]string{"AGRENTING_URL": srv.URL, "AGRENTING_API_KEY": key.Secret}))
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "because AGRENTING_URL is set; it only reads") || !strings.Contains(out.String(), "Scribe") {
		t.Errorf("the output does not say so:\n%s", out.String())
	}
	if strings.Contains(out.String(), key.Secret) {
		t.Errorf("the output has the key:\n%s", out.String())
	}
	for _, r := range srv.Requests() {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s was sent", r.Method, r.Path)
		}
	}
	if srv.Stats().Requests == 0 {
		t.Error("nothing was sent")
	}
}

// The transport of the program has the settings of http.DefaultTransport.
func TestRealPlatformIsReachedByTheDefaultBase(t *testing.T) { //nolint:paralleltest // it replaces http.DefaultTransport
	srv := agrentingtest.NewServer(agrentingtest.InMemory(), agrentingtest.WithTLS())
	defer srv.Close()
	set := func(rt http.RoundTripper) { http.DefaultTransport = rt } //nolint:forbidigo,reassign // it is restored
	defer set(http.DefaultTransport)                                 //nolint:forbidigo // see above
	set(srv.Transport())
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)

	var out bytes.Buffer
	err := run(t.Context(), &out, environment(map[string]string{"AGRENTING_URL": srv.URL, "AGRENTING_API_KEY": key.Secret}))
	if err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestFailuresAreToldApart(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	defer srv.Close()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for name, tc := range map[string]struct {
		ctx  context.Context
		vars map[string]string
		is   error
	}{
		"a wrong key":       {t.Context(), map[string]string{"AGRENTING_URL": srv.URL, "AGRENTING_API_KEY": "wrong"}, agrenting.ErrUnauthorized},
		"no key":            {t.Context(), map[string]string{"AGRENTING_URL": srv.URL}, agrenting.ErrNoCredential},
		"plain http":        {t.Context(), map[string]string{"AGRENTING_URL": "http://agrenting.example", "AGRENTING_API_KEY": "k"}, agrenting.ErrInsecureURL},
		"interrupted":       {stopped, nil, context.Canceled},
		"interrupted there": {stopped, map[string]string{"AGRENTING_URL": srv.URL, "AGRENTING_API_KEY": "k"}, context.Canceled},
	} {
		var out bytes.Buffer
		if err := run(tc.ctx, &out, environment(tc.vars)); !errors.Is(err, tc.is) {
			t.Errorf("%s: got %v, want %v", name, err, tc.is)
		}
	}
}

func TestFailedStepIsReported(t *testing.T) {
	t.Parallel()
	if err := want("a result", false, 17); err == nil || !strings.Contains(err.Error(), "a result: got 17") {
		t.Errorf("got %v", err)
	}
	if err := want("a result", true, 17); err != nil {
		t.Errorf("got %v", err)
	}
}
