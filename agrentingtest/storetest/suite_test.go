package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

var (
	errDown = errors.New("the place cannot be reached")
	errGone = errors.New("the place is gone")
)

// place is a correct store, or one with a defect. Its handles share it.
type place struct {
	defect string

	mu       sync.Mutex
	records  map[string]agrenting.Record
	last     int
	changed  chan struct{}
	gone     bool
	down     bool
	readOnly bool
}

// handle is a store.
type handle struct {
	*place

	cache map[string]agrenting.Record
}

func newPlace(defect string) *place {
	return &place{defect: defect, records: map[string]agrenting.Record{}, changed: make(chan struct{})}
}

func (p *place) open() *handle { return &handle{place: p, cache: map[string]agrenting.Record{}} }

func (p *place) has(defect string) bool { return p.defect == defect }

func clone(rec agrenting.Record) agrenting.Record {
	return agrenting.Record{Data: bytes.Clone(rec.Data), Revision: rec.Revision}
}

// name is the name under which a record is kept.
func (p *place) name(name string) string {
	switch {
	case p.has("names are cut off"):
		return name[:min(len(name), 40)]
	case p.has("names lose their dots"):
		return strings.ReplaceAll(name, ".", "-")
	case p.has("a name is a prefix"):
		name, _, _ = strings.Cut(name, ".")
	}
	return name
}

func (h *handle) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if err := ctx.Err(); err != nil && !h.has("load ignores the context") {
		if h.has("canceled means missing") {
			err = agrenting.ErrNoRecord
		}
		return agrenting.Record{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.load(h.name(name))
}

func (h *handle) load(name string) (agrenting.Record, error) {
	switch {
	case h.down && h.has("unreachable means missing"), h.gone && h.has("gone means missing"):
		return agrenting.Record{}, agrenting.ErrNoRecord
	case h.down:
		return agrenting.Record{}, errDown
	case h.gone:
		return agrenting.Record{}, errGone
	}
	rec, ok := h.records[name]
	if h.has("caches") || h.has("caches for a while") && h.last%2 == 1 {
		if cached, ok := h.cache[name]; ok {
			return clone(cached), nil
		}
	}
	switch {
	case !ok && h.has("missing is not an error"):
		return agrenting.Record{}, nil
	case !ok && h.has("missing is another error"):
		return agrenting.Record{}, os.ErrNotExist
	case !ok && h.has("missing has a revision"):
		return agrenting.Record{Revision: "0"}, agrenting.ErrNoRecord
	case !ok && h.has("missing shows the name's data"):
		return agrenting.Record{Data: []byte("x")}, agrenting.ErrNoRecord
	case !ok, len(rec.Data) == 0 && h.has("empty means missing"):
		return agrenting.Record{}, fmt.Errorf("%w: %s", agrenting.ErrNoRecord, name)
	case h.has("loads share memory"):
		return rec, nil
	case h.has("load has another revision"):
		rec.Revision += "'"
	case h.has("adds a newline"):
		rec.Data = append(bytes.Clone(rec.Data), '\n')
	case h.has("trims space"):
		rec.Data = bytes.TrimSpace(rec.Data)
	case h.has("ends at a NUL"):
		rec.Data, _, _ = bytes.Cut(rec.Data, []byte{0})
	case h.has("valid text only"):
		rec.Data = []byte(strings.ToValidUTF8(string(rec.Data), "?"))
	}
	h.cache[name] = rec
	return clone(rec), nil
}

func (h *handle) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < time.Second && h.has("interrupted saves come later") {
		late := bytes.Clone(data)
		go func() {
			<-time.After(time.Millisecond)
			h.mu.Lock()
			defer h.mu.Unlock()
			h.put(name, late)
		}()
		return "", context.DeadlineExceeded
	}
	if err := ctx.Err(); err != nil && !h.has("save ignores the context") {
		switch {
		case h.has("canceled means conflict"):
			err = agrenting.ErrConflictingWrite
		case h.has("canceled saves nevertheless"):
			_, _ = h.save(h.name(name), data, previous)
		}
		return "", err
	}
	return h.save(h.name(name), data, previous)
}

func (h *handle) save(name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.down && h.has("unreachable means conflict"), h.gone && h.has("gone means conflict"):
		return "", agrenting.ErrConflictingWrite
	case h.gone && h.has("a failed save creates the place"):
		h.gone = false
		return "", errGone
	case h.down:
		return "", errDown
	case h.gone:
		return "", errGone
	case h.readOnly && h.has("read-only is another error"):
		return "", os.ErrPermission
	case h.readOnly:
		return "", agrenting.ErrReadOnlyStore
	}
	now := h.records[name].Revision
	if h.has("checks before it locks") {
		h.mu.Unlock()
		<-time.After(time.Millisecond)
		h.mu.Lock()
	}
	switch {
	case h.has("no check"), h.has("first save always") && previous == "",
		h.has("any revision of a missing record") && now == "",
		h.has("spaces in revisions") && agrenting.Revision(strings.TrimSpace(string(previous))) == now,
		h.has("revisions of any record") && now != "" && h.given(previous) && previous >= now:
		previous = now
	}
	if previous != now {
		switch {
		case h.has("conflict is another error"):
			return "", errors.New("conflict")
		case h.has("conflict matches ErrNoRecord"):
			return "", fmt.Errorf("%w: %w", agrenting.ErrConflictingWrite, agrenting.ErrNoRecord)
		case h.has("conflict shows the data"):
			return "", fmt.Errorf("%w: %s", agrenting.ErrConflictingWrite, h.records[name].Data)
		case h.has("conflict saves"):
			h.put(name, data)
		case h.has("conflict has a revision"):
			return now, agrenting.ErrConflictingWrite
		}
		return "", agrenting.ErrConflictingWrite
	}
	switch {
	case len(data) > 4096 && h.has("small records only"):
		return "", errors.New("too large")
	case len(data) > 60_000 && h.has("large records are cut off"):
		data = data[:60_000]
	case h.has("same data is not saved") && now != "" && bytes.Equal(data, h.records[name].Data):
		return now, nil
	}
	rev := h.put(name, data)
	switch {
	case h.has("no revision"):
		return "", nil
	case h.has("save has another revision"):
		return rev + "'", nil
	}
	return rev, nil
}

// given reports whether a revision was returned by any save.
func (p *place) given(rev agrenting.Revision) bool {
	n, err := strconv.Atoi(string(rev))
	return err == nil && n > 0 && n <= p.last && strconv.Itoa(n) == string(rev)
}

func (p *place) put(name string, data []byte) agrenting.Revision {
	p.last++
	rec := agrenting.Record{Data: bytes.Clone(data), Revision: agrenting.Revision(strconv.Itoa(p.last))}
	switch {
	case p.has("saves share memory"):
		rec.Data = data
	case p.has("revision is a hash"):
		rec.Revision = agrenting.Revision(fmt.Sprintf("%d-%x", len(data), data[:min(len(data), 10)]))
	case p.has("revision is the data"):
		rec.Revision = agrenting.Revision(fmt.Sprintf("%d %s", p.last, data))
	case p.has("revision counts each record"):
		n, _ := strconv.Atoi(string(p.records[name].Revision))
		rec.Revision = agrenting.Revision(strconv.Itoa(n + 1))
	}
	p.records[name] = rec
	if p.has("an update may get lost") && p.last%7 == 0 && bytes.Count(data, []byte("\n")) > 9 {
		rec.Data = data[:bytes.IndexByte(data, '\n')+1]
		p.records[name] = rec
	}
	p.wake()
	return rec.Revision
}

func (p *place) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *place) remove(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.has("deletion is not seen") {
		return
	}
	delete(p.records, p.name(name))
	p.wake()
}

func (p *place) set(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	p.wake()
}

func (h *handle) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	b.WriteString("a store")
	if h.has("prints its records") {
		for _, rec := range h.records {
			b.Write(rec.Data)
		}
	}
	return b.String()
}

func (h *handle) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return func(yield func(agrenting.Record, error) bool) {
		if h.has("watch leaves a goroutine") {
			go func() { select {} }()
		}
		if ctx.Err() != nil {
			return
		}
		kept, seen := []agrenting.Record(nil), agrenting.Revision("none")
		for first := true; ; first = false {
			h.mu.Lock()
			rec, err := h.load(h.name(name))
			if h.has("watch yields any name") && h.last > 0 {
				for _, r := range h.records {
					if r.Revision == agrenting.Revision(strconv.Itoa(h.last)) {
						rec, err = r, nil
					}
				}
			}
			changed := h.changed
			h.mu.Unlock()
			failed := err != nil && !errors.Is(err, agrenting.ErrNoRecord)
			skip := first && h.has("watch skips the current record") ||
				!first && h.has("watch yields once") ||
				err != nil && !failed && h.has("watch does not yield ErrNoRecord") ||
				!first && err != nil && !failed && h.has("watch skips deletions") ||
				failed && h.has("watch hides errors")
			if h.has("watch yields late") && len(kept) > 0 && err == nil {
				kept = append(kept, rec)
				rec = kept[len(kept)-2] // always one behind
			} else if err == nil {
				kept = append(kept, rec)
			}
			if !skip && (rec.Revision != seen || failed) {
				out := rec
				switch {
				case h.has("watch has no revisions"):
					out.Revision = ""
				case h.has("watch shares memory") && err == nil:
					h.mu.Lock()
					out = h.records[h.name(name)]
					h.mu.Unlock()
				}
				if !yield(out, err) && !h.has("watch does not leave") {
					return
				}
				if h.has("watch goes back") && len(kept) > 2 && !yield(kept[0], nil) {
					return
				}
			}
			if failed && !h.has("watch continues after an error") && !h.has("watch hides errors") {
				return
			}
			if err != nil && !failed && h.has("watch ends without a record") {
				return
			}
			seen = rec.Revision
			if failed {
				seen = "none"
			}
			if h.has("watch does not end") {
				<-changed
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// conformance runs the suite with all options.
func conformance(t *testing.T, defect string) {
	t.Helper()
	shared := newPlace(defect)
	storetest.Test(t, func(*testing.T) agrenting.Store { return shared.open() },
		storetest.Delete(func(_ *testing.T, s agrenting.Store, name string) { s.(*handle).remove(name) }), //nolint:forcetypeassert,errcheck // it is
		storetest.Gone(func(*testing.T) agrenting.Store {
			p := newPlace(defect)
			p.gone = true
			return p.open()
		}),
		storetest.ReadOnly(func(*testing.T) agrenting.Store {
			p := newPlace(defect)
			p.readOnly = true
			return p.open()
		}),
		storetest.Unreachable(func(*testing.T) (agrenting.Store, func(), func()) {
			p := newPlace(defect)
			return p.open(), func() { p.set(true) }, func() { p.set(false) }
		}))
}

const defectVar = "STORETEST_DEFECT"

// TestDefect runs the suite for a store with the defect that the environment
// names, in another process: it is meant to fail.
func TestDefect(t *testing.T) { //nolint:paralleltest // alone in its process, or nothing
	defect, ok := os.LookupEnv(defectVar)
	if !ok {
		t.Log("nothing to do unless started by TestSuiteFindsDefects")
		return
	}
	conformance(t, defect)
}

func TestCorrectStoreConforms(t *testing.T) {
	t.Parallel()
	conformance(t, "")
}

func TestSuiteFindsDefects(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	require.NoError(t, err)
	slots := make(chan struct{}, 6)
	var wg sync.WaitGroup
	for defect, where := range map[string]string{
		"missing is not an error":          "",
		"missing is another error":         "",
		"missing has a revision":           "missing_record",
		"missing shows the name's data":    "missing_record",
		"no revision":                      "first_save",
		"first save always":                "first_save",
		"load has another revision":        "first_save",
		"save has another revision":        "first_save",
		"conflict has a revision":          "first_save",
		"conflict matches ErrNoRecord":     "first_save",
		"any revision of a missing record": "first_save_with_a_revision",
		"empty means missing":              "empty_record",
		"adds a newline":                   "",
		"trims space":                      "sizes_and_bytes",
		"ends at a NUL":                    "sizes_and_bytes",
		"valid text only":                  "sizes_and_bytes",
		"small records only":               "sizes_and_bytes",
		"large records are cut off":        "sizes_and_bytes",
		"no check":                         "stale_revision",
		"conflict is another error":        "stale_revision",
		"conflict saves":                   "stale_revision",
		"spaces in revisions":              "invented_revision",
		"revisions of any record":          "invented_revision",
		"revision is a hash":               "revisions_never_recur",
		"same data is not saved":           "revisions_never_recur",
		"revision counts each record":      "deleted_record",
		"caches for a while":               "first_save",
		"caches":                           "first_save",
		"names are cut off":                "independent_names",
		"names lose their dots":            "independent_names",
		"a name is a prefix":               "independent_names",
		"loads share memory":               "data_is_copied",
		"saves share memory":               "data_is_copied",
		"load ignores the context":         "canceled_context",
		"save ignores the context":         "canceled_context",
		"canceled means missing":           "canceled_context",
		"canceled means conflict":          "canceled_context",
		"canceled saves nevertheless":      "canceled_context",
		"conflict shows the data":          "printing",
		"revision is the data":             "printing",
		"prints its records":               "printing",
		"checks before it locks":           "one_of_many_saves_wins",
		"an update may get lost":           "no_update_is_lost",
		"interrupted saves come later":     "no_update_is_lost_or_doubled_by_interrupted_saves",
		"deletion is not seen":             "deleted_record",
		"gone means missing":               "place_that_is_gone",
		"gone means conflict":              "place_that_is_gone",
		"a failed save creates the place":  "place_that_is_gone",
		"unreachable means missing":        "unreachable_place",
		"unreachable means conflict":       "unreachable_place",
		"read-only is another error":       "read-only_store",
		"watch skips the current record":   "watch/first_value_is_the_record",
		"watch has no revisions":           "watch/first_value_is_the_record",
		"watch does not yield ErrNoRecord": "watch/first_value_is_ErrNoRecord",
		"watch ends without a record":      "watch/first_value_is_ErrNoRecord",
		"watch yields once":                "watch/changes",
		"watch yields late":                "watch/newest_after_a_burst",
		"watch goes back":                  "watch/changes",
		"watch skips deletions":            "watch/deletion",
		"watch yields any name":            "watch/other_names",
		"watch does not end":               "watch/ends_with_its_context",
		"watch leaves a goroutine":         "watch/ends_with_its_context",
		"watch does not leave":             "watch/ends_when_the_loop_is_left",
		"watch shares memory":              "watch/data_is_copied",
		"watch hides errors":               "watch/unreachable_place",
		"watch continues after an error":   "watch/unreachable_place",
	} {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			cmd := exec.CommandContext(t.Context(), exe, "-test.timeout=10s", "-test.run=^TestDefect$/^"+strings.ReplaceAll(where, "/", "$/^")+"$")
			if where == "" {
				cmd.Args[2] = "-test.run=^TestDefect$"
			}
			cmd.Env = append(os.Environ(), defectVar+"="+defect)
			out, err := cmd.CombinedOutput()
			if !assert.Error(t, err, "%s: nothing was found", defect) { //nolint:testifylint // not in a goroutine
				return
			}
			assert.Contains(t, string(out), "--- FAIL: TestDefect"+strings.TrimSuffix("/"+where, "/"), defect)
			assert.NotContains(t, string(out), "DATA RACE", "%s: the suite says what is wrong", defect)
			assert.NotContains(t, string(out), "panic: ", defect)
		})
	}
	wg.Wait()
}
