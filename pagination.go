package agrenting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// List walks through all pages of a list, following meta.pagination.cursor
// (platform documentation, "Pagination"; that page allows a limit of 1 to 100,
// set it by [CallQuery]), or counting pages where data has page and total_pages
// instead, as the platform's own client reads its list of hirings. Pages are fetched as the loop needs them. An error is
// yielded once, with the zero value, and ends the loop; the items before it
// stand.
//
// The data of a page may be an array or an object with the array as its only
// array member, since some routes wrap it. A cursor that leads in a circle is
// an error, not an endless loop.
func List[T any](ctx context.Context, c *Client, path string, opts ...CallOption) iter.Seq2[T, error] {
	opts = slices.Clone(opts)
	return func(yield func(T, error) bool) {
		var zero T
		var next url.Values
		seen := map[string]bool{}
		for {
			items, following, err := page[T](ctx, c, path, opts, next)
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if err != nil {
				yield(zero, err)
				return
			}
			if following == nil {
				return
			}
			if seen[following.Encode()] {
				yield(zero, listError(path, errors.New("its pages lead in a circle")))
				return
			}
			seen[following.Encode()] = true
			next = following
		}
	}
}

// listError names the list, without the query string that a path may have.
func listError(path string, err error) error {
	path, _, _ = strings.Cut(path, "?")
	return &callError{method: http.MethodGet, path: path, err: fmt.Errorf("%w: %w", ErrMalformedResponse, err)}
}

// page fetches one page; next leads to the following one and is nil at the end.
func page[T any](ctx context.Context, c *Client, path string, opts []CallOption, at url.Values) (items []T, next url.Values, err error) {
	if at != nil {
		opts = append(slices.Clip(opts), CallQuery(at))
	}
	var data json.RawMessage
	resp, err := c.Do(ctx, http.MethodGet, path, nil, &data, opts...)
	if err != nil {
		return nil, nil, err
	}
	if len(data) == 0 && resp.StatusCode == http.StatusOK {
		return nil, nil, listError(path, errors.New("the answer is empty"))
	}
	raw, following, err := listOf(data)
	if err != nil {
		return nil, nil, listError(path, err)
	}
	if !isNull(raw) {
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, nil, listError(path, fmt.Errorf("an item does not decode: %w", err))
		}
	}
	switch p := resp.Pagination; {
	case p == nil:
		return items, following, nil
	case !p.HasMore:
		return items, nil, nil
	case p.Cursor == "":
		return items, nil, listError(path, errors.New("there are more pages, but no cursor leads to them"))
	default:
		return items, url.Values{"cursor": {p.Cursor}}, nil
	}
}

// listOf finds the array in a page's data, and the page after it where the data
// counts pages.
func listOf(data json.RawMessage) (list json.RawMessage, next url.Values, err error) {
	if isNull(data) || data[0] == '[' {
		return data, nil, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, nil, errors.New("the data is neither an array nor an object")
	}
	for _, raw := range members {
		if len(raw) == 0 || raw[0] != '[' {
			continue
		}
		if list != nil {
			return nil, nil, errors.New("the data has more than one array")
		}
		list = raw
	}
	if list == nil {
		return nil, nil, errors.New("the data has no array")
	}
	number, err1 := strconv.Atoi(scalar(members["page"]))
	total, err2 := strconv.Atoi(scalar(members["total_pages"]))
	if err1 == nil && err2 == nil && number < total {
		next = url.Values{"page": {strconv.Itoa(number + 1)}}
	}
	return list, next, nil
}
