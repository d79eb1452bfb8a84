package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDemoShowsTheLifeOfAPod(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("links take a privilege there, and no kubelet swaps them")
	}
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-demo"}, &out), &out)
	assert.Equal(t, `a mounted key                                      /hirings 200, /readyz 200
the secret is replaced, and the old key revoked    /hirings 200, /readyz 200
the key is revoked, and the secret is not replaced /hirings 502, /readyz 503
the secret is replaced                             /hirings 200, /readyz 200
asked to end, with a request in progress           /hirings 200, /readyz 503
the service has ended; each request got a response
`, out.String())
}

func TestInterruptCleansUp(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	t.Setenv("TMP", folder) // on Windows
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, run(ctx, []string{"-demo"}, &bytes.Buffer{}))
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestPodReportsAnUnexpectedStatus(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	p := &pod{url: srv.URL, client: srv.Client(), out: &bytes.Buffer{}}
	require.ErrorContains(t, p.get(t.Context(), "/readyz", http.StatusOK), "/readyz returned 404")
}
