package wire

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
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
			for n, err := range List[int]("/x", pagesOf(&asked, tc.pages...)) {
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
		"empty answer":    {[]string{``}, 0, "the answer is empty"},
		"odd item":        {[]string{more, `["x"]`}, 1, "an item does not decode"},
		"no array":        {[]string{`{"a":1}`}, 0, "has no array"},
		"two arrays":      {[]string{`{"a":[],"b":[]}`}, 0, "more than one array"},
		"text":            {[]string{`"x"`}, 0, "neither an array nor an object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var items int
			var asked []string
			var last error
			for _, err := range List[int]("/x?q=query-value", pagesOf(&asked, tc.pages...)) {
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
	for _, err := range List[int]("/x", func(url.Values) (Page, error) { return Page{}, refused }) {
		assert.Same(t, refused, err)
	}
}

func TestListStopsWithTheLoop(t *testing.T) {
	t.Parallel()
	n := 0
	for _, err := range List[int]("/x", func(url.Values) (Page, error) {
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
