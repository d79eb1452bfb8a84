package agrenting

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

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// collect walks a list to its end.
func collect[T any](t *testing.T, c *Client, path string, opts ...CallOption) (items []T, err error) {
	t.Helper()
	for item, e := range List[T](t.Context(), c, path, opts...) {
		require.NoError(t, err, "nothing follows an error")
		if e != nil {
			err = e
			continue
		}
		items = append(items, item)
	}
	return items, err
}

// pagesOf serves the given bodies in turn; the last one is repeated.
func pagesOf(bodies ...string) *recorder {
	return &recorder{then: func(n int, _ seen) *http.Response {
		return reply(http.StatusOK, bodies[min(n, len(bodies))-1])
	}}
}

func TestListWalksThroughEveryPage(t *testing.T) {
	t.Parallel()
	srv := memoryServer(t)
	var want []string
	for i := range 45 {
		want = append(want, srv.NewAgent(nil, agrentingtest.AgentConfig{Name: fmt.Sprint("agent ", i), Capabilities: []string{"x"}}).ID)
	}
	c := clientOf(t, srv, WithCredential(APIKey(srv.NewKey(want[0]).Secret)))
	for limit, pages := range map[int]int{0: 3, 1: 45, 7: 7, 45: 1, 100: 1} {
		srv.ResetLog()
		q := url.Values{"capability": {"x"}}
		if limit > 0 {
			q.Set("limit", strconv.Itoa(limit))
		}
		got, err := collect[Agent](t, c, "/api/v1/agents", CallQuery(q))
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
	list := List[int](t.Context(), keyed(t, base), "/x")
	for i := range 2 {
		for n, err := range list {
			require.NoError(t, err)
			assert.Equal(t, 1, n)
			break
		}
		assert.Len(t, base.requests(), i+1, "and a second walk begins anew")
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
			got, err := collect[int](t, keyed(t, base), "/x")
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
			var sent []string
			for _, s := range base.requests() {
				u, err := url.Parse(s.url)
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
		"an odd item":          {[]string{more, `{"data":["x"]}`}, []int{1}, "an item does not decode"},
		"text":                 {[]string{`{"data":"x"}`}, nil, "neither an array nor an object"},
		"two arrays":           {[]string{`{"data":{"a":[],"b":[]}}`}, nil, "more than one array"},
		"no array":             {[]string{`{"data":{"a":1}}`}, nil, "no array"},
		"html":                 {[]string{"<html>"}, nil, "not JSON"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := collect[int](t, keyed(t, pagesOf(tc.pages...)), "/x?q=query-value")
			assert.Equal(t, tc.want, got, "the items before it stand")
			require.ErrorIs(t, err, ErrMalformedResponse)
			require.ErrorContains(t, err, "agrenting: GET /x: ")
			require.ErrorContains(t, err, tc.text)
			assertClean(t, err.Error())
		})
	}
	base := &recorder{then: func(n int, _ seen) *http.Response {
		if n == 1 {
			return reply(http.StatusOK, more)
		}
		return reply(http.StatusForbidden, `{"errors":[{"code":"FORBIDDEN","message":"no"}]}`)
	}}
	got, err := collect[int](t, keyed(t, base), "/x")
	require.ErrorIs(t, err, ErrForbidden)
	assert.Equal(t, []int{1}, got)
}

func TestListEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := keyed(t, tripFunc(func(req *http.Request) (*http.Response, error) {
		if err := req.Context().Err(); err != nil {
			return nil, err
		}
		return reply(http.StatusOK, `{"data":[1],"meta":{"pagination":{"cursor":"a","has_more":true}}}`), nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range List[int](ctx, c, "/x") {
		last = err
		cancel()
	}
	require.ErrorIs(t, last, context.Canceled)
}

func TestListIsIndependentOfTheCallersOptions(t *testing.T) {
	t.Parallel()
	base := pagesOf(`{"data":[1]}`)
	opts := make([]CallOption, 1, 8)
	opts[0] = CallAgent("agent-1")
	list := List[int](t.Context(), keyed(t, base), "/x", opts...)
	opts[0] = func(*callConfig) error { return errors.New("replaced after the call") }
	for _, err := range list {
		require.NoError(t, err)
	}
	assert.Equal(t, "agent-1", base.only(t).header.Get("X-Agent-ID"))
}
