package wire

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pagesOf serves bodies in turn, the last one again and again, and records the
// query of each page.
func pagesOf(asked *[]string, bodies ...string) func(url.Values) (Page, error) {
	n := 0
	return func(at url.Values) (Page, error) {
		n++
		*asked = append(*asked, at.Encode())
		env, err := Decode([]byte(bodies[min(n, len(bodies))-1]))
		return Page{Status: http.StatusOK, Data: env.Data, Pagination: env.Pagination}, err
	}
}

func TestListFollowsEveryForm(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pages []string
		want  []int
		asked []string
	}{
		"one page": {[]string{`[1,2]`}, []int{1, 2}, []string{""}},
		"null":     {[]string{`{"data":null}`}, nil, []string{""}},
		"wrapped":  {[]string{`{"data":{"tasks":[1],"total":1}}`}, []int{1}, []string{""}},
		"cursor": {
			[]string{`{"data":[1],"meta":{"pagination":{"cursor":"a=","has_more":"true"}}}`, `{"data":[2]}`},
			[]int{1, 2},
			[]string{"", "cursor=a%3D"},
		},
		"page count": {
			[]string{`{"data":{"h":[1],"page":1,"total_pages":"2"}}`, `{"data":{"h":[2],"page":2,"total_pages":2}}`},
			[]int{1, 2},
			[]string{"", "page=2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []int
			var asked []string
			for n, err := range List[int](t.Context(), "/x", pagesOf(&asked, tc.pages...)) {
				require.NoError(t, err)
				got = append(got, n)
			}
			assert.Equal(t, tc.want, got)
			assert.Equal(t, tc.asked, asked)
		})
	}
}

func TestListYieldsItsErrorLast(t *testing.T) {
	t.Parallel()
	const more = `{"data":[1],"meta":{"pagination":{"cursor":"a","has_more":true}}}`
	for name, tc := range map[string]struct {
		pages []string
		items int
		want  string
	}{
		"repeated cursor": {[]string{more}, 2, "cursor repeats"},
		"repeated page":   {[]string{`{"data":{"h":[1],"page":1,"total_pages":9}}`}, 2, "cursor repeats"},
		"no cursor":       {[]string{`{"data":[1],"meta":{"pagination":{"has_more":true}}}`}, 1, "no cursor leads to them"},
		"empty response":  {[]string{``}, 0, "the response is empty"},
		"odd item":        {[]string{more, `["x"]`}, 1, "an item cannot be decoded"},
		"no array":        {[]string{`{"a":1}`}, 0, "has no array"},
		"two arrays":      {[]string{`{"a":[],"b":[]}`}, 0, "more than one array"},
		"text":            {[]string{`"x"`}, 0, "neither an array nor an object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var items int
			var asked []string
			var last error
			for _, err := range List[int](t.Context(), "/x?q=query-value", pagesOf(&asked, tc.pages...)) {
				require.NoError(t, last, "an error ends the list")
				if last = err; err == nil {
					items++
				}
			}
			assert.Equal(t, tc.items, items)
			require.ErrorIs(t, last, ErrMalformed)
			require.ErrorContains(t, last, "agrenting: GET /x: malformed response: ")
			require.ErrorContains(t, last, tc.want)
		})
	}
}

func TestListPassesTheErrorOfAPageOn(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	for _, err := range List[int](t.Context(), "/x", func(url.Values) (Page, error) { return Page{}, refused }) {
		assert.Same(t, refused, err)
	}
}

func TestListStopsWithTheLoop(t *testing.T) {
	t.Parallel()
	n := 0
	for _, err := range List[int](t.Context(), "/x", func(url.Values) (Page, error) {
		n++
		return Page{Data: []byte(`[1]`), Pagination: &Pagination{Cursor: strconv.Itoa(n), HasMore: true}}, nil
	}) {
		require.NoError(t, err)
		if n == 3 {
			break
		}
	}
	assert.Equal(t, 3, n)
}

// numbered serves 10,000 pages, whose data and cursor depend on their number, so that a list
// that does not end fails its test.
func numbered(fetched *int, page func(n int) (data, cursor string)) func(url.Values) (Page, error) {
	return func(url.Values) (Page, error) {
		*fetched++
		if *fetched > 10_000 {
			return Page{}, errors.New("the list does not end")
		}
		data, cursor := page(*fetched)
		return Page{Data: []byte(data), Pagination: &Pagination{Cursor: cursor, HasMore: true}}, nil
	}
}

func TestListEndsAfterEmptyPages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		page           func(n int) (data, cursor string)
		fetched, items int
	}{
		"from the start": {func(n int) (string, string) { return `[]`, strconv.Itoa(n) }, 100, 0},
		"null":           {func(n int) (string, string) { return `null`, strconv.Itoa(n) }, 100, 0},
		"wrapped":        {func(n int) (string, string) { return `{"h":[]}`, strconv.Itoa(n) }, 100, 0},
		"after items": {func(n int) (string, string) {
			if n == 100 {
				return `[1]`, strconv.Itoa(n)
			}
			return `[]`, strconv.Itoa(n)
		}, 200, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fetched, items int
			var last error
			for _, err := range List[int](t.Context(), "/x", numbered(&fetched, tc.page)) {
				if last = err; err == nil {
					items++
				}
			}
			require.ErrorIs(t, last, ErrMalformed)
			require.ErrorContains(t, last, "agrenting: GET /x: malformed response: 100 pages in a row have no items")
			assert.Equal(t, tc.fetched, fetched)
			assert.Equal(t, tc.items, items)
		})
	}
}

func TestListEndsAfterEmptyCountedPages(t *testing.T) {
	t.Parallel()
	fetched := 0
	for _, err := range List[int](t.Context(), "/x", func(url.Values) (Page, error) {
		fetched++
		return Page{Data: []byte(`{"h":[],"page":` + strconv.Itoa(fetched) + `,"total_pages":1000000000}`)}, nil
	}) {
		require.ErrorIs(t, err, ErrMalformed)
	}
	assert.Equal(t, 100, fetched)
}

func TestListChecksItsContextBetweenPages(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{"items": `[1]`, "no items": `[]`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cause := errors.New("shutting down")
			ctx, cancel := context.WithCancelCause(t.Context())
			fetched := 0
			var last error
			for _, err := range List[int](ctx, "/x", numbered(&fetched, func(n int) (string, string) {
				if n == 3 {
					cancel(cause)
				}
				return data, strconv.Itoa(n)
			})) {
				last = err
			}
			assert.Equal(t, 3, fetched)
			require.ErrorIs(t, last, cause)
			require.ErrorIs(t, last, context.Canceled)
			require.NotErrorIs(t, last, ErrMalformed)
			require.EqualError(t, last, "agrenting: GET /x: shutting down")
		})
	}
}

func TestListRefusesLongCursors(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]int{maxCursor: 2, maxCursor + 1: 1} {
		fetched, items := 0, 0
		for _, err := range List[int](t.Context(), "/x", numbered(&fetched, func(int) (string, string) {
			return `[1]`, strings.Repeat("c", size)
		})) {
			if err == nil {
				items++
				continue
			}
			require.ErrorIs(t, err, ErrMalformed)
			assert.Less(t, len(err.Error()), 200)
		}
		assert.Equal(t, want, fetched, size)
		assert.Equal(t, want, items, "the items of the page are valid")
	}
}

// The memory of other tests would be counted too.
//
//nolint:paralleltest // see above
func TestListRemembersDigestsOfCursors(t *testing.T) {
	const pages = 200
	var before, after runtime.MemStats
	fetched := 0
	for _, err := range List[int](t.Context(), "/x", numbered(&fetched, func(n int) (string, string) {
		return `[1]`, strings.Repeat("c", maxCursor-10) + strconv.Itoa(n)
	})) {
		require.NoError(t, err)
		if fetched == 10 {
			runtime.GC()
			runtime.ReadMemStats(&before)
		}
		if fetched == pages {
			break
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	assert.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(pages*maxCursor/10))
}
