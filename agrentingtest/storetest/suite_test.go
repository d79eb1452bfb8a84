package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

// place is a right store, or one with a defect. Its handles share it.
type place struct {
	mu      sync.Mutex
	rec     *agrenting.KeyRecord
	rev     int
	changed chan struct{}
	defect  string
}

type handle struct {
	*place
	cached *agrenting.KeyRecord
	at     agrenting.Revision
}

func newPlace(defect string) *place { return &place{defect: defect, changed: make(chan struct{})} }

func copied(rec agrenting.KeyRecord) agrenting.KeyRecord {
	b, err := rec.Encode()
	if err != nil {
		panic(err)
	}
	if rec, err = agrenting.DecodeKeyRecord(b); err != nil {
		panic(err)
	}
	return rec
}

func (h *handle) Load(ctx context.Context) (agrenting.KeyRecord, agrenting.Revision, error) {
	if err := ctx.Err(); err != nil && h.defect != "load ignores the context" {
		if h.defect == "cancelled means empty" {
			err = agrenting.ErrNoCredential
		}
		return agrenting.KeyRecord{}, "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.rec == nil && h.defect == "empty is no error":
		return agrenting.KeyRecord{}, "", nil
	case h.rec == nil && h.defect == "empty is another error":
		return agrenting.KeyRecord{}, "", os.ErrNotExist
	case h.rec == nil && h.defect == "empty has a revision":
		return agrenting.KeyRecord{}, "0", agrenting.ErrNoCredential
	case h.rec == nil:
		return agrenting.KeyRecord{}, "", agrenting.ErrNoCredential
	case h.defect == "caches":
		if h.cached == nil {
			h.cached, h.at = h.rec, h.revision()
		}
		return copied(*h.cached), h.at, nil
	case h.defect == "loads share memory":
		return *h.rec, h.revision(), nil
	case h.defect == "another revision":
		return copied(*h.rec), h.revision() + "'", nil
	}
	return copied(*h.rec), h.revision(), nil
}

func (h *handle) revision() agrenting.Revision {
	switch {
	case h.rec == nil:
		return ""
	case h.defect == "revision is the generation":
		return agrenting.Revision(strconv.FormatUint(h.rec.Generation, 10))
	case h.defect == "revision is the secret":
		return agrenting.Revision(fmt.Sprint(h.rec.Current.Credential.Reveal(), h.rev))
	default:
		return agrenting.Revision(strconv.Itoa(h.rev))
	}
}

func (h *handle) Save(ctx context.Context, rec agrenting.KeyRecord, previous agrenting.Revision) (agrenting.Revision, error) {
	if err := ctx.Err(); err != nil && h.defect != "save ignores the context" {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.revision()
	if h.defect == "checks before it locks" {
		h.mu.Unlock()
		<-time.After(time.Millisecond)
		h.mu.Lock()
	}
	if h.defect == "first save always" && previous == "" || h.defect == "no check" ||
		h.defect == "any revision of an empty store" && now == "" {
		previous = now
	}
	if previous != now {
		switch h.defect {
		case "conflict is another error":
			return "", errors.New("conflict")
		case "conflict shows the secret":
			return "", fmt.Errorf("%w: %s", agrenting.ErrConflictingWrite, h.rec.Current.Credential.Reveal())
		case "conflict writes":
			h.put(rec)
		}
		return "", agrenting.ErrConflictingWrite
	}
	if len(rec.Ancestors) == 64 && h.defect == "small records only" {
		return "", errors.New("too large")
	}
	h.put(rec)
	if h.defect == "no revision" {
		return "", nil
	}
	return h.revision(), nil
}

func (h *handle) put(rec agrenting.KeyRecord) {
	held := copied(rec)
	switch h.defect {
	case "saves share memory":
		held = rec
	case "forgets the lifeline":
		if held.Intent != nil {
			held.Intent.Lifeline = agrenting.Credential{}
		}
	case "forgets what is known":
		if held.Intent != nil {
			held.Intent.Known = nil
		}
	case "forgets previous":
		held.Previous = agrenting.StoredKey{}
	case "forgets attempts":
		if held.Intent != nil {
			held.Intent.Attempts = 0
		}
	case "forgets kinds":
		held.Current.Credential = agrenting.APIKey(held.Current.Credential.Reveal())
	case "rounds times":
		held.Current.Created = held.Current.Created.Truncate(time.Second)
	case "keeps old members":
		if held.Intent == nil && h.rec != nil {
			held.Intent = h.rec.Intent
		}
	}
	h.rec = &held
	h.rev++
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *handle) String() string {
	if h.rec != nil && h.defect == "prints itself" {
		return h.rec.Current.Credential.Reveal()
	}
	return "a store"
}

func (h *handle) Watch(ctx context.Context) iter.Seq2[agrenting.KeyRecord, error] {
	return func(yield func(agrenting.KeyRecord, error) bool) {
		if h.defect == "watch leaves a goroutine" {
			go func() { select {} }()
		}
		first, seen := true, 0
		for {
			h.mu.Lock()
			rec, rev, changed := h.rec, h.rev, h.changed
			h.mu.Unlock()
			skip := first && h.defect == "watch skips the present" || !first && h.defect == "watch yields once"
			if rec != nil && rev != seen && !skip || rec == nil && h.defect == "watch yields nothing" {
				if rec == nil {
					rec = &agrenting.KeyRecord{}
				}
				out := *rec
				if h.defect != "watch shares memory" && !out.Current.IsZero() {
					out = copied(out)
				}
				if !yield(out, nil) && h.defect != "watch does not leave" {
					return
				}
			}
			first, seen = false, rev
			if h.defect == "watch does not end" {
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

const defectVar = "STORETEST_DEFECT"

// TestDefect runs the suite for a store with the defect that the environment
// names, as another process: it is meant to fail.
func TestDefect(t *testing.T) { //nolint:paralleltest // alone in its process, or nothing
	defect, ok := os.LookupEnv(defectVar)
	if !ok {
		t.Log("nothing to do unless started by TestSuiteFindsDefects")
		return
	}
	storetest.TestSharedStore(t, func(*testing.T) func() agrenting.KeyStore {
		p := newPlace(defect)
		return func() agrenting.KeyStore { return &handle{place: p} }
	})
}

func TestSuiteFindsNothingInARightStore(t *testing.T) {
	t.Parallel()
	storetest.TestSharedStore(t, func(*testing.T) func() agrenting.KeyStore {
		p := newPlace("")
		return func() agrenting.KeyStore { return &handle{place: p} }
	})
}

func TestSuiteFindsDefects(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	require.NoError(t, err)
	slots := make(chan struct{}, 8) // most of them wait
	var wg sync.WaitGroup
	for defect, where := range map[string]string{
		"empty is no error":              "an_empty_store_has_no_record",
		"empty is another error":         "an_empty_store_has_no_record",
		"empty has a revision":           "an_empty_store_has_no_record",
		"no revision":                    "the_first_save",
		"first save always":              "the_first_save",
		"any revision of an empty store": "no_first_save_with_a_revision",
		"no check":                       "a_stale_revision_is_refused",
		"conflict is another error":      "a_stale_revision_is_refused",
		"conflict writes":                "a_stale_revision_is_refused",
		"another revision":               "the_first_save",
		"forgets the lifeline":           "every_field_comes_back",
		"forgets what is known":          "every_field_comes_back",
		"forgets previous":               "every_field_comes_back",
		"forgets attempts":               "every_field_comes_back",
		"forgets kinds":                  "every_field_comes_back",
		"rounds times":                   "every_field_comes_back",
		"keeps old members":              "every_field_comes_back",
		"small records only":             "a_large_record_comes_back",
		"revision is the generation":     "no_revision_is_used_twice",
		"checks before it locks":         "one_of_many_writers_wins",
		"loads share memory":             "records_are_copies",
		"saves share memory":             "records_are_copies",
		"load ignores the context":       "a_cancelled_context",
		"save ignores the context":       "a_cancelled_context",
		"cancelled means empty":          "a_cancelled_context",
		"conflict shows the secret":      "nothing_printed_is_secret",
		"revision is the secret":         "nothing_printed_is_secret",
		"prints itself":                  "nothing_printed_is_secret",
		"caches":                         "shared",
		"watch skips the present":        "watch/it_begins_with_the_present_record",
		"watch yields nothing":           "watch/it_waits_for_the_first_record",
		"watch yields once":              "watch/it_yields_changes",
		"watch does not end":             "watch/it_ends_with_its_context",
		"watch leaves a goroutine":       "watch/it_ends_with_its_context",
		"watch does not leave":           "watch/it_ends_when_the_loop_is_left",
		"watch shares memory":            "watch/what_it_yields_are_copies",
	} {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			cmd := exec.CommandContext(t.Context(), exe, "-test.timeout=20s", "-test.run=^TestDefect$/"+where)
			cmd.Env = append(os.Environ(), defectVar+"="+defect)
			out, err := cmd.CombinedOutput()
			if !assert.Error(t, err, "%s: nothing was found", defect) { //nolint:testifylint // not in a goroutine
				return
			}
			assert.Contains(t, string(out), "--- FAIL: TestDefect/"+where, defect)
			assert.NotContains(t, string(out), "DATA RACE", "%s: the suite says what is wrong", defect)
		})
	}
	wg.Wait()
}
