package evidence

import (
	"strings"
	"time"
)

// Route is the method and the path of a request. The path has no query.
type Route struct{ Method, Path string }

// pathKey identifies a route with IDs folded. Two routes may have the same key, but this is
// very unlikely.
type pathKey uint64

// FNV-1a, without an allocation.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func (k pathKey) with(text string) pathKey {
	for i := range len(text) {
		k = (k ^ pathKey(text[i])) * fnvPrime
	}
	return k
}

// key folds the IDs in the path. It does not allocate.
func (r Route) key() pathKey {
	key, path := pathKey(fnvOffset).with(r.Method), r.Path
	for path != "" {
		var segment string
		segment, path, _ = strings.Cut(path, "/")
		if isID(segment) {
			segment = "*"
		}
		key = key.with("/").with(segment)
	}
	return key
}

// maxName is the length of a segment above which it counts as an ID.
const maxName = 32

// isID reports whether a segment of a path is an ID: it is long, or it contains a digit and
// is not a version such as v1.
func isID(segment string) bool {
	if len(segment) > maxName {
		return true
	}
	version := len(segment) > 1 && segment[0] == 'v' && strings.Trim(segment[1:], "0123456789") == ""
	return !version && strings.ContainsAny(segment, "0123456789")
}

// path is what is known about a route.
type path struct {
	key          pathKey
	unauthorized bool // it has returned a 401
	refusing     bool // it has refused all resends of a request, and accepted none since
	refused      time.Time
	used         time.Time // used to find the least recently used route

	// The last history whose credential it accepted, and when that request was sent.
	accepted     *History
	acceptedSent time.Time
}

// maxPaths bounds how many routes are remembered.
const maxPaths = 64

// pathLocked returns what is known about a route.
func (b *Book) pathLocked(r Route, now time.Time) *path {
	key := r.key()
	p := b.findPathLocked(key)
	if p == nil {
		p = &path{key: key}
		if len(b.paths) < maxPaths {
			b.paths = append(b.paths, p)
		} else {
			b.paths[b.oldestPathLocked()] = p
		}
	}
	p.used = now
	return p
}

// findPathLocked returns nil if nothing is known about a route. The list is short, and most
// clients use one or two routes, so a map would be larger and not faster.
func (b *Book) findPathLocked(key pathKey) *path {
	for _, p := range b.paths {
		if p.key == key {
			return p
		}
	}
	return nil
}

// oldestPathLocked returns the index of the least recently used route.
func (b *Book) oldestPathLocked() (oldest int) {
	for i, p := range b.paths {
		if p.used.Before(b.paths[oldest].used) {
			oldest = i
		}
	}
	return oldest
}
