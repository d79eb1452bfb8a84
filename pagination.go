package agrenting

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
)

// List walks through all pages of a list, following meta.pagination.cursor
// (platform documentation, "Pagination"; that page allows a limit of 1 to 100,
// set it by [CallQuery]). Pages are fetched as the loop needs them. An error is
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
		cursor := ""
		seen := map[string]bool{}
		for {
			items, next, err := page[T](ctx, c, path, opts, cursor)
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if err != nil {
				yield(zero, err)
				return
			}
			if next == "" {
				return
			}
			if seen[next] {
				yield(zero, fmt.Errorf("%w: GET %s: the cursors of its pages lead in a circle", ErrMalformedResponse, path))
				return
			}
			seen[next] = true
			cursor = next
		}
	}
}

// page fetches one page; next is the cursor of the following one, "" at the end.
func page[T any](ctx context.Context, c *Client, path string, opts []CallOption, cursor string) (items []T, next string, err error) {
	if cursor != "" {
		opts = append(opts[:len(opts):len(opts)], CallQuery(url.Values{"cursor": {cursor}}))
	}
	var data json.RawMessage
	resp, err := c.Do(ctx, http.MethodGet, path, nil, &data, opts...)
	if err != nil {
		return nil, "", err
	}
	raw, err := listOf(data)
	if err != nil {
		return nil, "", fmt.Errorf("%w: GET %s: %w", ErrMalformedResponse, path, err)
	}
	if !isNull(raw) {
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, "", fmt.Errorf("%w: GET %s: an item does not decode: %w", ErrMalformedResponse, path, err)
		}
	}
	if p := resp.Pagination; p != nil && p.HasMore {
		if next = p.Cursor; next == "" {
			return items, "", fmt.Errorf("%w: GET %s: there are more pages, but no cursor leads to them", ErrMalformedResponse, path)
		}
	}
	return items, next, nil
}

// listOf finds the array in a page's data.
func listOf(data json.RawMessage) (json.RawMessage, error) {
	if isNull(data) || data[0] == '[' {
		return data, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, fmt.Errorf("the data is neither an array nor an object")
	}
	var found json.RawMessage
	for _, raw := range members {
		if len(raw) > 0 && raw[0] == '[' {
			if found != nil {
				return nil, fmt.Errorf("the data has more than one array")
			}
			found = raw
		}
	}
	if found == nil {
		return nil, fmt.Errorf("the data has no array")
	}
	return found, nil
}
