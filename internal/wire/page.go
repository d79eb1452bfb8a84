package wire

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// A Page is one response of a list.
type Page struct {
	Status     int
	Data       json.RawMessage
	Pagination *Pagination // nil if the response has none
}

const (
	// maxEmptyPages is how many consecutive pages may have no items. The body of the
	// caller's loop does not run for such pages, so it cannot end the loop.
	maxEmptyPages = 100

	// maxCursor is the length of the longest cursor that is followed. A cursor is sent in
	// the query of a URL, for which servers allow about 8 KiB.
	maxCursor = 64 << 10
)

// List yields the items of all pages. fetch returns the page for the given query
// parameters; nil means the first page. List fetches pages as the loop needs them. It
// follows meta.pagination.cursor, or counts pages if the data contains page and
// total_pages instead. The items of a page are its data if that is an array, or otherwise
// the only array in the data.
//
// An error is yielded once, with the zero value, and ends the list. The items before it
// are valid. A cursor that repeats or is longer than 64 KiB is an error, and so are 100
// consecutive pages without items. Errors of List itself match [ErrMalformed] and name the
// path. Errors of fetch are yielded unchanged. If ctx ends between two pages, the error
// matches its cause.
func List[T any](ctx context.Context, path string, fetch func(at url.Values) (Page, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		var w walk
		for ctx.Err() == nil {
			p, err := fetch(w.at)
			if err != nil {
				yield(zero, err)
				return
			}
			items, next, err := readPage[T](p)
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if err == nil && next != nil {
				err = w.advance(next, len(items))
			}
			if err != nil {
				yield(zero, listError(path, fmt.Errorf("%w: %w", ErrMalformed, err)))
				return
			}
			if next == nil {
				return
			}
		}
		yield(zero, listError(path, ended(ctx, ctx.Err())))
	}
}

// walk is the position in the pages of a list.
type walk struct {
	at    url.Values                     // where the next page is; nil for the first one
	seen  map[[sha256.Size]byte]struct{} // digests of the positions so far, because cursors may be long
	empty int                            // consecutive pages without items
}

// advance moves from a page with the given number of items to the next page.
func (w *walk) advance(next url.Values, items int) error {
	w.empty++
	if items > 0 {
		w.empty = 0
	}
	where := sha256.Sum256([]byte(next.Encode()))
	_, repeats := w.seen[where]
	switch {
	case repeats:
		return errors.New("its pagination cursor repeats")
	case len(next.Get("cursor")) > maxCursor:
		return fmt.Errorf("its pagination cursor is longer than %d KiB", maxCursor>>10)
	case w.empty == maxEmptyPages:
		return fmt.Errorf("%d pages in a row have no items", maxEmptyPages)
	}
	if w.seen == nil {
		w.seen = map[[sha256.Size]byte]struct{}{}
	}
	w.at, w.seen[where] = next, struct{}{}
	return nil
}

// listError adds the name of the list to an error, without the query string that a path
// may have.
func listError(path string, err error) error {
	path, _, _ = strings.Cut(path, "?")
	return &CallError{Method: http.MethodGet, Path: path, Err: err}
}

// readPage returns the items of a page and the position of the next page. It may return
// both items and an error.
func readPage[T any](p Page) (items []T, next url.Values, err error) {
	if len(p.Data) == 0 && p.Status == http.StatusOK {
		return nil, nil, errors.New("the response is empty")
	}
	raw, next, err := findList(p.Data)
	if err != nil {
		return nil, nil, err
	}
	if !IsNull(raw) {
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, nil, fmt.Errorf("an item cannot be decoded: %w", err)
		}
	}
	switch m := p.Pagination; {
	case m == nil:
		return items, next, nil
	case !m.HasMore:
		return items, nil, nil
	case m.Cursor == "":
		return items, nil, errors.New("there are more pages, but no cursor leads to them")
	default:
		return items, url.Values{"cursor": {m.Cursor}}, nil
	}
}

// findList finds the array in the data of a page, and the position of the next page if the
// data counts pages.
func findList(data json.RawMessage) (list json.RawMessage, next url.Values, err error) {
	if IsNull(data) || data[0] == '[' {
		return data, nil, nil
	}
	var o Object
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, nil, errors.New("the data is neither an array nor an object")
	}
	for _, raw := range o {
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
	number, err1 := strconv.Atoi(scalar(o["page"]))
	total, err2 := strconv.Atoi(scalar(o["total_pages"]))
	if err1 == nil && err2 == nil && number < total {
		next = url.Values{"page": {strconv.Itoa(number + 1)}}
	}
	return list, next, nil
}
