package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// pagesOf serves the given bodies in turn; the last one is repeated.
func pagesOf(bodies ...string) *sdktest.Recorder {
	return &sdktest.Recorder{Then: func(n int, _ sdktest.Seen) *http.Response {
		return sdktest.Reply(http.StatusOK, bodies[min(n, len(bodies))-1])
	}}
}

func TestListWalksThroughEveryPage(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	var want []string
	for i := range 45 {
		want = append(want, srv.NewAgent(nil, agrentingtest.AgentConfig{Name: fmt.Sprint("agent ", i), Capabilities: []string{"x"}}).ID)
	}
	c := sdktest.ClientOf(t, srv, agrenting.WithCredential(agrenting.APIKey(srv.NewKey(want[0]).Secret)))
	for limit, pages := range map[int]int{0: 3, 1: 45, 7: 7, 45: 1, 100: 1} {
		srv.ResetLog()
		q := url.Values{"capability": {"x"}}
		if limit > 0 {
			q.Set("limit", strconv.Itoa(limit))
		}
		got, err := sdktest.Collect[agrenting.Agent](t, c, "/api/v1/agents", agrenting.CallQuery(q))
		require.NoError(t, err)
		ids := make([]string, 0, len(got))
		for i := range got {
			ids = append(ids, got[i].ID)
		}
		assert.Equal(t, want, ids, limit)
		requests := srv.Requests()
		assert.Len(t, requests, pages)
		for i := range requests {
			assert.Equal(t, "x", requests[i].Query.Get("capability"), "the caller's query goes with every page")
			assert.Equal(t, i > 0, requests[i].Query.Has("cursor"))
		}
	}
}

func TestListStopsWhenTheLoopDoes(t *testing.T) {
	t.Parallel()
	base := pagesOf(`{"data":[1,2],"meta":{"pagination":{"cursor":"c","has_more":true}}}`)
	list := agrenting.List[int](t.Context(), sdktest.Keyed(t, base), "/x")
	for i := range 2 {
		for n, err := range list {
			require.NoError(t, err)
			assert.Equal(t, 1, n)
			break
		}
		assert.Len(t, base.Requests(), i+1, "and a second loop begins again")
	}
}

func TestListTakesEveryShapeOfAPage(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		pages []string
		want  []int
		sent  []string // queries
	}{
		"array":            {[]string{`{"data":[1,2]}`}, []int{1, 2}, []string{""}},
		"no envelope":      {[]string{`[1,2]`}, []int{1, 2}, []string{""}},
		"wrapped":          {[]string{`{"data":{"tasks":[1,2],"total":2}}`}, []int{1, 2}, []string{""}},
		"empty":            {[]string{`{"data":[]}`}, nil, []string{""}},
		"null":             {[]string{`{"data":null,"meta":{}}`}, nil, []string{""}},
		"null pagination":  {[]string{`{"data":[1],"meta":{"pagination":null}}`}, []int{1}, []string{""}},
		"last with cursor": {[]string{`{"data":[1],"meta":{"pagination":{"cursor":"c","has_more":false}}}`}, []int{1}, []string{""}},
		"cursor": {
			[]string{`{"data":[1],"meta":{"pagination":{"total_count":2,"cursor":"a+/=","has_more":true}}}`, `{"data":[2],"meta":{"pagination":{"cursor":null,"has_more":false}}}`},
			[]int{1, 2},
			[]string{"", "cursor=a%2B%2F%3D"},
		},
		"an empty page in between": {
			[]string{`{"data":[],"meta":{"pagination":{"cursor":"a","has_more":true}}}`, `{"data":[2]}`},
			[]int{2},
			[]string{"", "cursor=a"},
		},
		"oddly typed": {
			[]string{`{"data":[1],"meta":{"pagination":{"total_count":"many","cursor":17,"has_more":"true"}}}`, `{"data":[2]}`},
			[]int{1, 2},
			[]string{"", "cursor=17"},
		},
		"counted pages": {
			[]string{
				`{"data":{"hirings":[1],"total":3,"page":1,"per_page":1,"total_pages":3}}`,
				`{"data":{"hirings":[2],"total":3,"page":2,"per_page":1,"total_pages":3}}`,
				`{"data":{"hirings":[3],"total":3,"page":3,"per_page":1,"total_pages":3}}`,
			},
			[]int{1, 2, 3},
			[]string{"", "page=2", "page=3"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := pagesOf(tc.pages...)
			got, err := sdktest.Collect[int](t, sdktest.Keyed(t, base), "/x")
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
			var sent []string
			for _, s := range base.Requests() {
				u, err := url.Parse(s.URL)
				require.NoError(t, err)
				sent = append(sent, u.RawQuery)
			}
			assert.Equal(t, tc.sent, sent)
		})
	}
}

func TestListYieldsAnErrorOnceAndStops(t *testing.T) {
	t.Parallel()
	const more = `{"data":[1],"meta":{"pagination":{"cursor":"a","has_more":true}}}`
	cases := map[string]struct {
		pages []string
		want  []int
		text  string
	}{
		"a circle":             {[]string{more}, []int{1, 1}, "cursor repeats"},
		"a page that counts 1": {[]string{`{"data":{"h":[1],"page":1,"total_pages":9}}`}, []int{1, 1}, "cursor repeats"},
		"more without cursor":  {[]string{`{"data":[1],"meta":{"pagination":{"has_more":true}}}`}, []int{1}, "no cursor leads to them"},
		"an odd item":          {[]string{more, `{"data":["x"]}`}, []int{1}, "an item cannot be decoded"},
		"text":                 {[]string{`{"data":"x"}`}, nil, "neither an array nor an object"},
		"two arrays":           {[]string{`{"data":{"a":[],"b":[]}}`}, nil, "more than one array"},
		"no array":             {[]string{`{"data":{"a":1}}`}, nil, "no array"},
		"html":                 {[]string{"<html>"}, nil, "not JSON"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := sdktest.Collect[int](t, sdktest.Keyed(t, pagesOf(tc.pages...)), "/x?q=query-value")
			assert.Equal(t, tc.want, got, "the items before it are valid")
			require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
			require.ErrorContains(t, err, "agrenting: GET /x: ")
			require.ErrorContains(t, err, tc.text)
			sdktest.AssertClean(t, err.Error())
		})
	}
	base := &sdktest.Recorder{Then: func(n int, _ sdktest.Seen) *http.Response {
		if n == 1 {
			return sdktest.Reply(http.StatusOK, more)
		}
		return sdktest.Reply(http.StatusForbidden, `{"errors":[{"code":"FORBIDDEN","message":"no"}]}`)
	}}
	got, err := sdktest.Collect[int](t, sdktest.Keyed(t, base), "/x")
	require.ErrorIs(t, err, agrenting.ErrForbidden)
	assert.Equal(t, []int{1}, got)
}

func TestListEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := sdktest.Keyed(t, sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		if err := req.Context().Err(); err != nil {
			return nil, err
		}
		return sdktest.Reply(http.StatusOK, `{"data":[1],"meta":{"pagination":{"cursor":"a","has_more":true}}}`), nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range agrenting.List[int](ctx, c, "/x") {
		last = err
		cancel()
	}
	require.ErrorIs(t, last, context.Canceled)
}

func TestListIsIndependentOfTheCallersOptions(t *testing.T) {
	t.Parallel()
	base := pagesOf(`{"data":[1]}`)
	opts := make([]agrenting.CallOption, 1, 8)
	opts[0] = agrenting.CallAgent("agent-1")
	list := agrenting.List[int](t.Context(), sdktest.Keyed(t, base), "/x", opts...)
	opts[0] = func(*agrenting.CallConfig) error { return errors.New("replaced after the call") }
	for _, err := range list {
		require.NoError(t, err)
	}
	assert.Equal(t, "agent-1", base.Only(t).Header.Get("X-Agent-ID"))
}
