package replay_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// A body that can be read only once is resent if the platform has not asked for it.
func TestExpectContinueSavesBodyOverEachBase(t *testing.T) {
	t.Parallel()
	bases := map[string]func(*agrentingtest.Server) *http.Transport{
		"embedded platform": (*agrentingtest.Server).Transport,
		"default": func(s *agrentingtest.Server) *http.Transport {
			to, base := s.Transport(), agrenting.NewBaseTransport()
			base.DialContext, base.TLSClientConfig = to.DialContext, to.TLSClientConfig
			return base
		},
	}
	protocols := map[string][]agrentingtest.Option{"HTTP/1": nil, "HTTP/2": {agrentingtest.WithTLS()}}
	for name, newBase := range bases {
		for protocol, opts := range protocols {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewSessionWorld(t, opts...)
					w.Server.Handle(echoRoute, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(rw, r.Body) }))
					base := newBase(w.Server)
					t.Cleanup(base.CloseIdleConnections)
					c := w.Client(agrenting.WithTransport(base))
					for range 3 {
						req := sdktest.Request(t, http.MethodPost, w.Server.URL+echoRoute, struct{ io.Reader }{strings.NewReader("body")})
						req.Header.Set("Expect", "100-continue")
						resp, err := c.HTTPClient().Do(req)
						require.NoError(t, err)
						assert.True(t, strings.HasPrefix(protocol, resp.Proto[:6]), resp.Proto)
						assert.Equal(t, http.StatusOK, resp.StatusCode)
						assert.Equal(t, "body", readAll(t, resp))
						w.Server.RevokeSessions()
					}
				})
			})
		}
	}
}
