package agrentingtest

import (
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
)

const (
	defaultPageSize = 20
	maxPageSize     = 100
	cursorPrefix    = "after:"
)

// pageInfo is meta.pagination.
type pageInfo struct {
	TotalCount int     `json:"total_count"`
	Cursor     *string `json:"cursor"`
	HasMore    bool    `json:"has_more"`
}

// paginate returns one page of items, which are ordered by seq. The cursor
// identifies the last item of the previous page, not a position, so that a page
// neither repeats nor skips items when items are added or removed between two
// calls.
func paginate[T any](q url.Values, items []T, seq func(T) uint64) ([]T, *pageInfo, *failure) {
	limit, f := intParam(q, "limit", defaultPageSize, 1, maxPageSize)
	if f != nil {
		return nil, nil, f
	}
	start := 0
	if cursor := q.Get("cursor"); cursor != "" {
		after, ok := decodeCursor(cursor)
		if !ok {
			return nil, nil, invalid("cursor", "is not a cursor of this list")
		}
		for start < len(items) && seq(items[start]) <= after {
			start++
		}
	} else {
		if start, f = intParam(q, "offset", 0, 0, 1<<31-1); f != nil {
			return nil, nil, f
		}
		start = min(start, len(items))
	}
	end := min(start+limit, len(items))
	info := &pageInfo{TotalCount: len(items), HasMore: end < len(items)}
	if info.HasMore {
		info.Cursor = new(encodeCursor(seq(items[end-1])))
	}
	return items[start:end], info, nil
}

func intParam(q url.Values, name string, def, lo, hi int) (int, *failure) {
	raw := q.Get(name)
	if raw == "" {
		return def, nil
	}
	n, err := strconv.Atoi(raw)
	if err != nil || n < lo || n > hi {
		return 0, invalid(name, "must be a number from %d to %d", lo, hi)
	}
	return n, nil
}

func encodeCursor(seq uint64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + strconv.FormatUint(seq, 10)))
}

func decodeCursor(cursor string) (uint64, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return 0, false
	}
	digits, ok := strings.CutPrefix(string(raw), cursorPrefix)
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, err == nil
}
