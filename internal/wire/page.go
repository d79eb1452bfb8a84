package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// A Page is one answer of a list.
type Page struct {
	Status     int
	Data       json.RawMessage
	Pagination *Pagination // nil if the answer has none
}

// List yields the items of all pages. fetch returns the page at the given query
// parameters; nil means the first page. List fetches pages as the loop needs them
// and follows meta.pagination.cursor, or counts pages where the data has page and
// total_pages instead. The items of a page are its data if that is an array, or the
// only array in it.
//
// An error is yielded once, with the zero value, and ends the list; the items
// before it are valid. A cursor that repeats is an error. Errors of List itself
// match [ErrMalformed] and name the path; those of fetch are yielded unchanged.
func List[T any](path string, fetch func(at url.Values) (Page, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		var at url.Values
		seen := map[string]bool{}
		for {
			p, err := fetch(at)
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
			if err == nil && next != nil && seen[next.Encode()] {
				err = errors.New("its pagination cursor repeats")
			}
			if err != nil {
				yield(zero, listError(path, err))
				return
			}
			if next == nil {
				return
			}
			seen[next.Encode()] = true
			at = next
		}
	}
}

// listError names the list, without the query string that a path may have.
func listError(path string, err error) error {
	path, _, _ = strings.Cut(path, "?")
	return &CallError{Method: http.MethodGet, Path: path, Err: fmt.Errorf("%w: %w", ErrMalformed, err)}
}

// readPage returns the items of a page and where the next page is. There may be
// items and an error.
func readPage[T any](p Page) (items []T, next url.Values, err error) {
	if len(p.Data) == 0 && p.Status == http.StatusOK {
		return nil, nil, errors.New("the answer is empty")
	}
	raw, next, err := findList(p.Data)
	if err != nil {
		return nil, nil, err
	}
	if !IsNull(raw) {
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, nil, fmt.Errorf("an item does not decode: %w", err)
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

// findList finds the array in the data of a page, and the next page where the data
// counts pages.
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
