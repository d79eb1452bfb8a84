package agrenting

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"slices"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// List yields the items of all pages of a list. It follows meta.pagination.cursor
// (platform documentation, "Pagination"; that page allows a limit of 1 to 100, which
// you set with [CallQuery]), or counts pages where data has page and total_pages
// instead, as the platform's own client reads its list of hirings. Pages are fetched
// as the loop needs them. An error is yielded once, with the zero value, and ends the
// loop; the items before it are valid.
//
// The data of a page may be an array or an object with the array as its only array
// member, because some routes wrap it. The loop always ends: a cursor that repeats is an
// error, and so are 100 pages in a row without items. Between pages, List checks ctx,
// whose cause is the error if it has ended.
func List[T any](ctx context.Context, c *Client, path string, opts ...CallOption) iter.Seq2[T, error] {
	if ctx == nil {
		return func(yield func(T, error) bool) {
			var none T
			yield(none, optionError("List", "the context is nil"))
		}
	}
	opts = slices.Clone(opts)
	return wire.List[T](ctx, path, func(at url.Values) (wire.Page, error) {
		var data json.RawMessage
		resp, err := c.Do(ctx, http.MethodGet, path, nil, &data, append(slices.Clip(opts), CallQuery(at))...)
		if err != nil {
			return wire.Page{}, err
		}
		return wire.Page{Status: resp.StatusCode, Data: data, Pagination: (*wire.Pagination)(resp.Pagination)}, nil
	})
}
