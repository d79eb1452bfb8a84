package agrentingtest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

const (
	faultsPath  = "/_sandbox/faults"
	reportPath  = "/_sandbox/report"
	revokePath  = "/_sandbox/revoke"
	replacePath = "/_sandbox/rotate"
)

// wrong is the error of a control route for a bad request.
type wrong struct {
	Field, Message string
	Allowed        []string
}

func (a answer) wrong(t *testing.T) wrong {
	t.Helper()
	var body struct{ Error wrong }
	require.NoError(t, json.Unmarshal([]byte(a.raw), &body), a.raw)
	return body.Error
}

// faultReports reads the faults that a control route lists.
func (a answer) faultReports(t *testing.T) []agrentingtest.FaultReport {
	t.Helper()
	var body struct{ Faults []agrentingtest.FaultReport }
	require.NoError(t, json.Unmarshal([]byte(a.raw), &body), a.raw)
	return body.Faults
}

func (w *world) report() (r agrentingtest.Report) {
	w.t.Helper()
	a := w.get(reportPath)
	require.Equal(w.t, http.StatusOK, a.status, a.raw)
	require.NoError(w.t, json.Unmarshal([]byte(a.raw), &r))
	return r
}

func TestOrderedFaultsApply(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		order string
		check func(t *testing.T, a answer, err error)
	}{
		"status": {`"kind":"status","status":418,"code":"TEAPOT"`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, 418, a.status)
			assert.Equal(t, "TEAPOT", a.code())
		}},
		"retry after seconds": {`"kind":"status","status":503,"retry_after":2`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, "2", a.header.Get("Retry-After"))
		}},
		"retry after text": {`"kind":"status","status":429,"retry_after":"soon"`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, "soon", a.header.Get("Retry-After"))
		}},
		"page": {`"kind":"page","status":502`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, 502, a.status)
			assert.Contains(t, a.raw, "<html>")
		}},
		"empty": {`"kind":"empty","status":200`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, 200, a.status)
			assert.Empty(t, a.raw)
		}},
		"handler error": {`"kind":"handler_error","status":500`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, "INTERNAL_ERROR", a.code())
		}},
		"redirect": {`"kind":"redirect","status":307,"url":"https://elsewhere.example/"`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, "https://elsewhere.example/", a.header.Get("Location"))
		}},
		"gone": {`"kind":"gone"`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, 410, a.status)
		}},
		"revoke now": {`"kind":"revoke_now"`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, 401, a.status)
		}},
		"header": {`"kind":"set_header","headers":{"X-Extra":"1"}`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, 200, a.status)
			assert.Equal(t, "1", a.header.Get("X-Extra"))
		}},
		"sunset": {`"kind":"sunset","at":"2030-01-01T00:00:00Z"`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, "Tue, 01 Jan 2030 00:00:00 GMT", a.header.Get("Sunset"))
		}},
		"malformed": {`"kind":"malformed_json"`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, 200, a.status)
			assert.False(t, json.Valid([]byte(a.raw)), a.raw)
		}},
		"drop before": {`"kind":"drop_before","times":9`, func(t *testing.T, _ answer, err error) {
			t.Helper()
			assert.Error(t, err)
		}},
		"drop after": {`"kind":"drop_after","times":9`, func(t *testing.T, _ answer, err error) {
			t.Helper()
			assert.Error(t, err)
		}},
		"reset": {`"kind":"reset_mid_body","bytes":7`, func(t *testing.T, a answer, err error) {
			t.Helper()
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			assert.Len(t, a.raw, 7)
		}},
		"delay": {`"kind":"delay","delay":"1h"`, func(t *testing.T, a answer, _ error) {
			t.Helper()
			assert.Equal(t, 200, a.status)
			assert.Equal(t, "2000-01-01T01:00:00Z", a.env.Meta.Timestamp)
		}},
		"stall": {`"kind":"stall","bytes":3`, func(t *testing.T, a answer, err error) {
			t.Helper()
			require.Error(t, err)
			assert.Len(t, a.raw, 3)
		}},
		"joined": {`"kind":"page+reset_mid_body+sunset","status":504,"bytes":9,"at":"2030-01-01T00:00:00Z","delay":"1m","headers":{"X-Extra":"1"}`, func(t *testing.T, a answer, err error) {
			t.Helper()
			require.Error(t, err)
			assert.Equal(t, 504, a.status)
			assert.Equal(t, "<!DOCTYPE", a.raw)
			assert.Equal(t, "1", a.header.Get("X-Extra"))
			assert.NotEmpty(t, a.header.Get("Sunset"))
			at, _ := http.ParseTime(a.header.Get("Date"))
			assert.Equal(t, time.Minute, at.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, agrentingtest.WithControl())
				w.client.Timeout = 2 * time.Hour
				made := w.post(faultsPath, `{"pattern":"GET /api/v1/tasks",`+c.order+`}`)
				require.Equal(t, http.StatusCreated, made.status, made.raw)
				assert.Equal(t, 200, w.asKey().get("/api/v1/hirings/pending").status, "another route")
				a, err := w.asKey().try(http.MethodGet, tasksPath, "")
				c.check(t, a, err)
				assert.NotZero(t, w.report().Faults[0].Requests)
			})
		})
	}
}

func TestOrderedFaultsApplyAsOften(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		order          string
		faulty, served int // requests, before and after the faults are cleared
		left           int // as listed, before the first request
	}{
		"once":   {`{"pattern":"*","kind":"gone"}`, 1, 3, 1},
		"times":  {`{"pattern":"*","kind":"gone","times":3}`, 3, 1, 3},
		"always": {`{"pattern":"*","kind":"gone","always":true}`, 4, 0, 0},
		"share":  {`{"pattern":"*","kind":"gone","share":1}`, 4, 0, 0},
		"none":   {`{"pattern":"*","kind":"gone","share":0}`, 0, 4, 0},
		"both":   {`{"pattern":"*","kind":"gone","share":1,"times":2}`, 2, 2, 2},
		"list":   {`[{"pattern":"*","kind":"gone"},{"pattern":"!GET *","kind":"gone","always":true},{"pattern":"/api/v1/health","kind":"gone"}]`, 2, 2, 1},
		"empty":  {`[]`, 0, 4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, agrentingtest.WithControl())
			require.Equal(t, http.StatusCreated, w.post(faultsPath, c.order).status)
			pending := w.get(faultsPath).faultReports(t)
			if len(pending) > 0 {
				assert.Equal(t, c.left, pending[0].Left)
				assert.Equal(t, "pending", pending[0].State)
				assert.Equal(t, "gone", pending[0].Kind)
			}
			faulty, served := 0, 0
			for range 4 {
				if w.get(health).status == http.StatusGone {
					faulty++
				} else {
					served++
				}
			}
			assert.Equal(t, []int{c.faulty, c.served}, []int{faulty, served})
			left := len(w.get(faultsPath).faultReports(t))
			assert.JSONEq(t, fmt.Sprintf(`{"cleared":%d}`, left), w.del(faultsPath).raw)
			assert.Equal(t, 200, w.get(health).status)
			assert.Empty(t, w.get(faultsPath).faultReports(t))
			for _, f := range w.report().Faults {
				assert.NotEqual(t, "pending", f.State)
			}
		})
	}
}

func TestOrdersAreDecodedStrictly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithControl())
	for name, c := range map[string]struct {
		body, field, message string
		allowed              string // one of them
	}{
		"no JSON":            {`kind=gone`, "", "the body must be a JSON object", ""},
		"nothing":            {``, "", "the body must be a JSON object", ""},
		"null":               {`null`, "", "the body must be a JSON object", ""},
		"two values":         {`{"pattern":"*","kind":"gone"}{}`, "", "the body must be a JSON object", ""},
		"broken list":        {`[{]`, "", "not JSON", ""},
		"no kind":            {`{"pattern":"*"}`, "kind", "kind is missing (want delay, drop_before,", "revoke_now"},
		"no pattern":         {`{"kind":"gone"}`, "pattern", `pattern is missing (want "METHOD /path"`, ""},
		"unknown kind":       {`{"pattern":"*","kind":"explode"}`, "kind", `unknown kind "explode" (want delay, drop_before,`, "reset_mid_body"},
		"kind of a number":   {`{"pattern":"*","kind":7}`, "kind", "invalid kind 7 (want delay,", "gone"},
		"Go's name":          {`{"pattern":"*","kind":"DropBefore"}`, "kind", `unknown kind "DropBefore"`, "drop_before"},
		"two responses":      {`{"pattern":"*","kind":"gone+status","status":500}`, "kind", `"gone+status" cannot be joined`, ""},
		"two ends":           {`{"pattern":"*","kind":"stall+reset_mid_body"}`, "kind", "cannot be joined", ""},
		"twice":              {`{"pattern":"*","kind":"delay+delay","delay":"1s"}`, "kind", "cannot be joined", ""},
		"unknown field":      {`{"pattern":"*","kind":"gone","colour":"red"}`, "colour", `"colour" is not a field of this kind of fault (want after_serving, always, delay, headers, kind, pattern, share, times)`, "times"},
		"other kind's field": {`{"pattern":"*","kind":"gone","status":500}`, "status", `"status" is not a field of this kind`, "always"},
		"other case":         {`{"pattern":"*","Kind":"gone"}`, "kind", "kind is missing", "gone"},
		"no status":          {`{"pattern":"*","kind":"status"}`, "status", "status is missing", ""},
		"status too low":     {`{"pattern":"*","kind":"status","status":100}`, "status", "invalid status 100 (want a status from 200 to 599)", ""},
		"status as text":     {`{"pattern":"*","kind":"page","status":"502"}`, "status", `invalid status "502"`, ""},
		"no redirect":        {`{"pattern":"*","kind":"redirect","status":304,"url":"/x"}`, "status", "want 301, 302, 303, 307, or 308", ""},
		"no URL":             {`{"pattern":"*","kind":"redirect","status":302}`, "url", "url is missing", ""},
		"path without slash": {`{"pattern":"tasks","kind":"gone"}`, "pattern", `invalid pattern "tasks" (want "METHOD /path"`, ""},
		"no times":           {`{"pattern":"*","kind":"gone","times":0}`, "times", "invalid times 0 (want a whole number of requests from 1)", ""},
		"half a time":        {`{"pattern":"*","kind":"gone","times":1.5}`, "times", "invalid times 1.5", ""},
		"share of 5":         {`{"pattern":"*","kind":"gone","share":5}`, "share", "invalid share 5 (want a number from 0 to 1, such as 0.05)", ""},
		"null share":         {`{"pattern":"*","kind":"gone","share":null}`, "share", "invalid share null", ""},
		"always and times":   {`{"pattern":"*","kind":"gone","always":true,"times":2}`, "always", "cannot be combined", ""},
		"always and share":   {`{"pattern":"*","kind":"gone","always":true,"share":1}`, "always", "cannot be combined", ""},
		"delay of a number":  {`{"pattern":"*","kind":"delay","delay":5}`, "delay", `invalid delay 5 (want a duration such as "250ms" or "2s")`, ""},
		"negative delay":     {`{"pattern":"*","kind":"gone","delay":"-1s"}`, "delay", "invalid delay", ""},
		"negative bytes":     {`{"pattern":"*","kind":"stall","bytes":-1}`, "bytes", "invalid bytes -1", ""},
		"retry after list":   {`{"pattern":"*","kind":"status","status":503,"retry_after":[1]}`, "retry_after", "want seconds such as 2", ""},
		"header injection":   {`{"pattern":"*","kind":"set_header","headers":{"X":"a\nb"}}`, "headers", "want an object of header names", ""},
		"header name":        {`{"pattern":"*","kind":"set_header","headers":{"X Y":"a"}}`, "headers", "invalid headers", ""},
		"no headers":         {`{"pattern":"*","kind":"set_header","headers":{}}`, "headers", "invalid headers", ""},
		"no time":            {`{"pattern":"*","kind":"sunset","at":"tomorrow"}`, "at", `such as "2026-12-31T00:00:00Z"`, ""},
		"second of a list":   {`[{"pattern":"*","kind":"gone"},{"pattern":"*","kind":"x"}]`, "[1].kind", "unknown kind", "gone"},
		"number in a list":   {`[{"pattern":"*","kind":"gone"},7]`, "[1]", "an entry of the list must be a JSON object", ""},
		"long value":         {`{"pattern":"*","kind":"gone","times":"` + strings.Repeat("s", 60) + `"}`, "times", "invalid times value (want", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := w.post(faultsPath, c.body)
			assert.Equal(t, http.StatusUnprocessableEntity, a.status, a.raw)
			got := a.wrong(t)
			assert.Equal(t, c.field, got.Field)
			assert.Contains(t, got.Message, c.message)
			if c.allowed != "" {
				assert.Contains(t, got.Allowed, c.allowed)
			}
		})
	}
	t.Cleanup(func() { assert.Empty(t, w.Report().Faults, "a bad order scripts nothing") })
}

func TestControlIsForProgramsOfThisMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithControl())
	type request struct {
		remote, host string
		header       []string
	}
	for name, c := range map[string]struct {
		request
		refusal string
	}{
		"loopback":           {request{"127.0.0.1:5", "127.0.0.1:4000", nil}, ""},
		"IPv6":               {request{"[::1]:5", "[::1]:4000", nil}, ""},
		"mapped":             {request{"[::ffff:127.0.0.1]:5", "localhost", nil}, ""},
		"any case":           {request{"127.0.0.1:5", "LocalHost:4000", nil}, ""},
		"address bar":        {request{"127.0.0.1:5", "localhost:4000", []string{"Sec-Fetch-Site", "none"}}, ""},
		"another machine":    {request{"192.0.2.1:5", "127.0.0.1:4000", nil}, "from this machine only"},
		"no address":         {request{"@", "127.0.0.1:4000", nil}, "from this machine only"},
		"rebound name":       {request{"127.0.0.1:5", "rebound.example:4000", nil}, `not as "rebound.example:4000"`},
		"name with a prefix": {request{"127.0.0.1:5", "localhost.rebound.example", nil}, "not as"},
		"no name":            {request{"127.0.0.1:5", "", nil}, "not as"},
		"page":               {request{"127.0.0.1:5", "127.0.0.1:4000", []string{"Origin", "https://evil.example"}}, "web pages"},
		"own page":           {request{"127.0.0.1:5", "127.0.0.1:4000", []string{"Origin", "http://127.0.0.1:4000"}}, "web pages"},
		"opaque page":        {request{"127.0.0.1:5", "127.0.0.1:4000", []string{"Origin", "null"}}, "web pages"},
		"page without it":    {request{"127.0.0.1:5", "127.0.0.1:4000", []string{"Sec-Fetch-Site", "cross-site"}}, "web pages"},
		"page nearby":        {request{"127.0.0.1:5", "127.0.0.1:4000", []string{"Sec-Fetch-Site", "same-site"}}, "web pages"},
		"tunnel":             {request{"127.0.0.1:5", "127.0.0.1:4000", []string{"X-Forwarded-For", "192.0.2.1"}}, "through a proxy"},
		"gateway":            {request{"127.0.0.1:5", "127.0.0.1:4000", []string{"Forwarded", "for=192.0.2.1"}}, "through a proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for method, path := range map[string]string{"GET": reportPath, "POST": faultsPath, "DELETE": faultsPath, "OPTIONS": revokePath} {
				r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader("[]"))
				r.RemoteAddr, r.Host = c.remote, c.host
				for i := 0; i < len(c.header); i += 2 {
					r.Header.Set(c.header[i], c.header[i+1])
				}
				rec := httptest.NewRecorder()
				w.Handler().ServeHTTP(rec, r)
				for name := range rec.Header() {
					assert.NotContains(t, name, "Access-Control")
				}
				if c.refusal == "" {
					assert.NotEqual(t, http.StatusForbidden, rec.Code, rec.Body)
					continue
				}
				assert.Equal(t, http.StatusForbidden, rec.Code, method)
				assert.Contains(t, answer{raw: rec.Body.String()}.wrong(t).Message, c.refusal)
			}
		})
	}
}

func TestControlIsNotPartOfThePlatform(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithControl(), agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 2}))
	w.Fault("*", agrentingtest.Status(500, "").Always())
	w.Chaos(1)
	for range 5 {
		assert.Equal(t, 200, w.get(reportPath).status)
		assert.Equal(t, 200, w.with("X-API-Key", "two", "Authorization", "Bearer one").get(faultsPath).status)
	}
	assert.Empty(t, w.Requests())
	assert.Zero(t, w.Stats())
	assert.Empty(t, w.report().Requests)

	plain := newWorld(t)
	for _, path := range []string{reportPath, faultsPath} {
		assert.Equal(t, "ROUTE_NOT_FOUND", plain.get(path).code(), "only WithControl serves it")
	}
}

func TestControlNamesItsRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithControl())
	for _, path := range []string{"/_sandbox/", "/_sandbox/fault", "/_sandbox/faults/", "/_sandbox//faults"} {
		a := w.get(path)
		assert.Equal(t, 404, a.status, path)
		assert.Equal(t, []string{"/_sandbox", faultsPath, reportPath, revokePath, replacePath}, a.wrong(t).Allowed)
	}
	assert.JSONEq(t, `{"routes":["DELETE /_sandbox/faults","GET /_sandbox","GET /_sandbox/faults","GET /_sandbox/report",
		"POST /_sandbox/faults","POST /_sandbox/revoke","POST /_sandbox/rotate"]}`, w.get("/_sandbox").raw)
	a := w.call(http.MethodPut, faultsPath, "{}")
	assert.Equal(t, 405, a.status)
	assert.Equal(t, "DELETE, GET, POST", a.header.Get("Allow"))
	assert.Equal(t, 405, w.post(reportPath, "").status)
	assert.Equal(t, 413, w.post(faultsPath, strings.Repeat(" ", 1<<20+1)).status)
	assert.Equal(t, "ROUTE_NOT_FOUND", w.get("/_sandboxes").code())
}

// TestControlAcceptsCurlRequests speaks HTTP over a socket, without an HTTP
// client.
func TestControlAcceptsCurlRequests(t *testing.T) {
	t.Parallel()
	s := agrentingtest.NewServer(agrentingtest.WithControl())
	defer s.Close()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	exchange := func(method, path, body string) (int, string) {
		_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"+
			"Content-Length: %d\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n%s",
			method, path, conn.RemoteAddr(), len(body), body)
		require.NoError(t, err)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	status, body := exchange("POST", faultsPath, `{"pattern":"GET /api/v1/health","kind":"status","status":503,"retry_after":"2"}`)
	assert.Equal(t, 201, status)
	assert.JSONEq(t, `{"faults":[{"id":1,"pattern":"GET /api/v1/health","kind":"status","state":"pending","requests":0,"left":1}]}`, body)
	status, _ = exchange("GET", health, "")
	assert.Equal(t, 503, status)
	status, body = exchange("GET", faultsPath, "")
	assert.Equal(t, 200, status)
	assert.JSONEq(t, `{"faults":[]}`, body)
	status, body = exchange("DELETE", faultsPath, "")
	assert.Equal(t, 200, status)
	assert.JSONEq(t, `{"cleared":0}`, body)
	_, body = exchange("GET", reportPath, "")
	assert.Contains(t, body, `"state": "consumed"`)
}

func TestRevocationIsOrdered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body      func(w *world, session string) string
		counts    string
		k, t, s   int // statuses of the key, the token, and the session afterwards
		otherKeys int
	}{
		"key":       {func(w *world, _ string) string { return `"credential":"` + w.key.Secret + `"` }, `{"keys":1,"tokens":0,"sessions":0}`, 401, 200, 200, 1},
		"key by ID": {func(w *world, _ string) string { return `"key_id":"` + strings.ToUpper(w.key.ID) + `"` }, `{"keys":1,"tokens":0,"sessions":0}`, 401, 200, 200, 1},
		"agent":     {func(w *world, _ string) string { return `"agent":"` + w.agent.DID + `"` }, `{"keys":2,"tokens":0,"sessions":0}`, 401, 200, 200, 0},
		"token":     {func(w *world, _ string) string { return `"credential":"` + w.token.Secret + `"` }, `{"keys":0,"tokens":1,"sessions":0}`, 200, 401, 200, 2},
		"token ID":  {func(w *world, _ string) string { return `"token_id":"` + w.token.ID + `"` }, `{"keys":0,"tokens":1,"sessions":0}`, 200, 401, 200, 2},
		"session":   {func(_ *world, session string) string { return `"credential":"` + session + `"` }, `{"keys":0,"tokens":0,"sessions":1}`, 200, 200, 401, 2},
		"sessions":  {func(*world, string) string { return `"sessions":"all"` }, `{"keys":0,"tokens":0,"sessions":2}`, 200, 200, 401, 2},
		"agent's":   {func(w *world, _ string) string { return `"sessions":"` + w.agent.ID + `"` }, `{"keys":0,"tokens":0,"sessions":2}`, 200, 200, 401, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, agrentingtest.WithControl())
			other := w.NewKey(w.agent.ID)
			session, _ := w.NewSession(w.key.Secret)
			_, _ = w.NewSession(other.Secret)
			body := "{" + c.body(w, session) + "}"
			a := w.post(revokePath, body)
			require.Equal(t, 200, a.status, a.raw)
			assert.JSONEq(t, c.counts, a.raw)
			assert.Equal(t, []int{c.k, c.t, c.s}, []int{
				w.asKey().get(tasksPath).status, w.asToken().get(tasksPath).status, w.bearer(session).get(tasksPath).status,
			})
			assert.Len(t, w.LiveKeys(w.agent.ID), c.otherKeys)
			again := 422 // it is revoked already
			if name == "sessions" {
				again = 200 // all of none
			}
			assert.Equal(t, again, w.post(revokePath, body).status)
		})
	}
}

func TestRevocationOfAllSessions_withoutAny(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithControl())
	const none = `{"keys":0,"tokens":0,"sessions":0}`
	for range 2 { // before any session, and after the only one has ended
		a := w.post(revokePath, `{"sessions":"all"}`)
		assert.Equal(t, 200, a.status)
		assert.JSONEq(t, none, a.raw)
		_, _ = w.NewSession(w.key.Secret)
		assert.JSONEq(t, `{"keys":0,"tokens":0,"sessions":1}`, w.post(revokePath, `{"sessions":"all"}`).raw)
	}
	assert.Equal(t, 200, w.asKey().get(tasksPath).status)
}

func TestRevocationReportsRemovedCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithControl())
	for body, want := range map[string]string{
		``:                             "JSON object",
		`{}`:                           "must have one field (want agent, credential, key_id, sessions, token_id)",
		`{"key_id":"a","agent":"b"}`:   "must have one field",
		`{"key":"x"}`:                  `"key" is not a field of this route (want agent,`,
		`{"sessions":true}`:            "invalid sessions true",
		`{"credential":""}`:            "invalid credential",
		`{"credential":"made-up"}`:     "no live credential of this server matches credential",
		`{"sessions":"made-up"}`:       "no live credential of this server matches sessions",
		`{"agent":"` + w.key.ID + `"}`: "no live credential",
	} {
		a := w.post(revokePath, body)
		assert.Equal(t, 422, a.status, body)
		assert.Contains(t, a.wrong(t).Message, want)
		assert.NotContains(t, a.raw, "made-up")
	}
}

func TestRotationIsOrdered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithControl())
	second := w.NewKey(w.agent.ID)
	a := w.post(replacePath, `{"agent":"`+w.agent.ID+`"}`)
	require.Equal(t, http.StatusCreated, a.status, a.raw)
	var made struct {
		KeyID   string `json:"key_id"`
		Key     string
		Agent   string `json:"agent_id"`
		Revoked []string
	}
	require.NoError(t, json.Unmarshal([]byte(a.raw), &made))
	assert.Equal(t, w.agent.ID, made.Agent)
	assert.Equal(t, []string{w.key.ID, second.ID}, made.Revoked)
	assert.Equal(t, 401, w.asKey().get(tasksPath).status)
	assert.Equal(t, 200, w.caller.key(made.Key).get(tasksPath).status)
	assert.Equal(t, made.KeyID, w.LiveKeys(w.agent.ID)[0].ID)
	assert.Zero(t, w.Stats().Rotations, "no client has rotated")
	for body, want := range map[string]string{
		`{}`: "agent is missing", `{"agent":7}`: "invalid agent 7", `{"agent":"nope"}`: "no such agent", `[]`: "JSON object",
	} {
		assert.Contains(t, w.post(replacePath, body).wrong(t).Message, want)
	}
}

func TestOrderedFaultDoesTheWorkFirst(t *testing.T) {
	t.Parallel()
	for _, order := range []string{
		`"kind":"status","status":503`, `"kind":"page+stall","status":504`, `"kind":"empty","status":200`,
		`"kind":"redirect","status":307,"url":"/elsewhere"`, `"kind":"gone"`,
	} {
		for _, served := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %t", order, served), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, agrentingtest.WithControl())
					w.client.Timeout = time.Minute
					made := w.post(faultsPath, fmt.Sprintf(`{"pattern":"POST %s",%s,"after_serving":%t}`, rotatePath, order, served))
					require.Equal(t, http.StatusCreated, made.status, made.raw)
					a, _ := w.asKey().try(http.MethodPost, rotatePath, "") // a stall is an error
					assert.Empty(t, a.text("api_key"))
					assert.Equal(t, served, !w.KeyAlive(w.key.Secret))
				})
			})
		}
	}
}
