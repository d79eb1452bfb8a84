package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestShutdownLosesNoRequest(t *testing.T) {
	t.Parallel()

	w := start(t, setup{server: []agrentingtest.Option{agrentingtest.WithoutRateLimits()}})
	w.srv.Handle("POST /count", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusNoContent)
	}))
	var answered, lost atomic.Int64
	begun := make(chan struct{})
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for {
				var traced strings.Builder
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
					fmt.Fprintf(&traced, " conn reused=%v idle=%v %v", i.Reused, i.WasIdle, i.IdleTime)
				}})
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/count", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := w.client.Do(req)
				if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
					return // it was never sent
				}
				if err != nil {
					lost.Add(1)
					t.Error(err, traced.String())
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				assert.Equal(t, http.StatusNoContent, resp.StatusCode)
				if answered.Add(1) == 100 {
					close(begun)
				}
			}
		})
	}
	<-begun
	cut, err := w.stop()
	require.NoError(t, err)
	assert.Zero(t, cut)
	callers.Wait()
	assert.Zero(t, lost.Load())
	assert.EqualValues(t, answered.Load(), w.srv.Count("POST /count"))
}

func TestShutdownWaitsForStreamsAndThenCutsThem(t *testing.T) {
	t.Parallel()

	w := start(t, setup{grace: 300 * time.Millisecond})
	w.srv.Handle("GET /socket/agent", http.HandlerFunc(echo))
	conn, r := w.upgrade()
	began := time.Now()
	cut, err := w.stop()
	require.NoError(t, err)
	assert.Equal(t, 1, cut)
	assert.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
	_, err = r.ReadByte()
	require.Error(t, err)
	require.NoError(t, conn.Close())
}

func TestARequestUnderWayIsFinished(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	arrived, release := make(chan struct{}), make(chan struct{})
	w.srv.Handle("GET /slow", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(rw, "done")
	}))
	got := make(chan string, 1)
	go func() {
		_, body := w.send(http.MethodGet, "/slow", "")
		got <- body
	}()
	<-arrived
	time.AfterFunc(500*time.Millisecond, func() { close(release) })
	cut, err := w.stop()
	require.NoError(t, err)
	assert.Zero(t, cut)
	assert.Equal(t, "done", <-got)
}
