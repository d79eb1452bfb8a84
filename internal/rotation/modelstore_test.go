package rotation

import (
	"context"
	"errors"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
)

// memoryStore is a store in memory. It can lose what it has.
type memoryStore struct {
	mu       sync.Mutex
	data     []byte
	revision int // 0 if there is no record
	last     int // the latest revision
	past     []record.Raw
	missing  bool // as a volume is that is not mounted
	changed  chan struct{}
}

var errGone = errors.New("model: the volume is gone")

func (s *memoryStore) Load(context.Context, string) (record.Raw, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.missing:
		return record.Raw{}, errGone
	case s.revision == 0:
		return record.Raw{}, record.ErrNoRecord
	}
	return record.Raw{Data: s.data, Revision: strconv.Itoa(s.revision)}, nil
}

func (s *memoryStore) Save(_ context.Context, _ string, data []byte, previous string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusalLocked(previous); err != nil {
		return "", err
	}
	defer s.notifyLocked()
	s.putLocked(squeezed(data))
	s.past = append(s.past, record.Raw{Data: s.data, Revision: strconv.Itoa(s.revision)})
	return strconv.Itoa(s.revision), nil
}

// refusalLocked returns why a record cannot be saved.
func (s *memoryStore) refusalLocked(previous string) error {
	if s.missing {
		return errGone
	}
	if now := strconv.Itoa(s.revision); previous != now && (previous != "" || s.revision != 0) {
		return record.ErrConflict
	}
	return nil
}

// Watch implements record.Store.
func (s *memoryStore) Watch(ctx context.Context, name string) iter.Seq2[record.Raw, error] {
	return func(yield func(record.Raw, error) bool) {
		for {
			changes := s.changes()
			if raw, err := s.Load(ctx, name); !yield(raw, err) {
				return
			}
			select {
			case <-changes:
			case <-ctx.Done():
				return
			}
		}
	}
}

// changes is closed at the next change.
func (s *memoryStore) changes() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

func (s *memoryStore) notifyLocked() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// putLocked replaces the record under a new revision.
func (s *memoryStore) putLocked(data []byte) {
	s.last++
	s.data, s.revision = data, s.last
}

// strike has the store lose what it has.
func (s *memoryStore) strike(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == deleted || f == rolledBack || f == rolledBackFirst || f == cutInHalf || f == emptied || f == gone {
		defer s.notifyLocked()
	}
	switch f {
	case deleted:
		s.data, s.revision = nil, 0
	case rolledBack:
		s.restoreLocked(s.earlierLocked())
	case rolledBackFirst:
		if len(s.past) > 0 {
			s.restoreLocked(s.past[0])
		}
	case cutInHalf:
		if s.revision != 0 {
			s.putLocked(s.data[:len(s.data)/2])
		}
	case emptied:
		if s.revision != 0 {
			s.putLocked(nil)
		}
	case gone:
		s.missing = true
	default:
	}
}

// earlierLocked returns the record before the latest one. An empty revision is returned
// for no record.
func (s *memoryStore) earlierLocked() record.Raw {
	if len(s.past) < 2 {
		return record.Raw{}
	}
	return s.past[len(s.past)-2]
}

// restoreLocked restores a record from a backup, with the revision that it had.
func (s *memoryStore) restoreLocked(raw record.Raw) {
	s.data = raw.Data
	s.revision, _ = strconv.Atoi(raw.Revision) // 0 if there is none
}

func (s *memoryStore) repair() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missing = false
	s.notifyLocked()
}

// saved returns the records that were saved so far.
func (s *memoryStore) saved() []record.Raw {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clip(s.past)
}

// outdatedFor is for how long a process may load an earlier record.
const outdatedFor = 3 * time.Second

// load loads the record as the process gets to see it.
func (p *process) load(ctx context.Context, name string, f fault) (raw record.Raw, err error) {
	s := &p.w.store
	s.strike(f)
	p.mu.Lock()
	if f == outdated || f == outdatedLong {
		s.mu.Lock()
		p.old, p.outdatedUntil = s.earlierLocked(), p.w.clock()
		s.mu.Unlock()
	}
	if f == outdatedLong {
		p.outdatedUntil += outdatedFor
	}
	isOld, old := f == outdated || p.w.clock() < p.outdatedUntil, p.old
	p.mu.Unlock()
	switch {
	case !isOld:
		raw, err = s.Load(ctx, name)
	case old.Revision == "":
		return record.Raw{}, record.ErrNoRecord
	default:
		raw = old
	}
	p.learn(raw.Revision)
	raw.Data = p.w.clocks.shift(raw.Data, -1)
	return raw, err
}

// save saves the record, or pretends to.
func (p *process) save(ctx context.Context, name string, data []byte, previous string, f fault) (string, error) {
	s := &p.w.store
	s.strike(f)
	if f == lostSave {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.refusalLocked(previous); err != nil {
			return "", err
		}
		s.last++
		return strconv.Itoa(s.last), nil
	}
	return s.Save(ctx, name, p.w.clocks.shift(data, 1), previous)
}

// watch reports changes of the record as the process gets to see them.
func (p *process) watch(ctx context.Context, name string) iter.Seq2[record.Raw, error] {
	return func(yield func(record.Raw, error) bool) {
		for raw, err := range p.w.store.Watch(ctx, name) {
			p.awaitResumed()
			if p.dead() {
				<-ctx.Done()
				return
			}
			p.learn(raw.Revision)
			raw.Data = p.w.clocks.shift(raw.Data, -1)
			if !yield(raw, err) {
				return
			}
		}
	}
}

// learn notes a revision that the process has loaded, or a key that it was given.
func (p *process) learn(what string) {
	if what == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.knows == nil {
		p.knows = map[string]bool{}
	}
	p.knows[what] = true
}

// wallClocks is by how much the wall clocks of the processes are ahead of that of the
// model: the dates that they write are ahead, and so is the time that they compare the
// dates in records with.
type wallClocks struct{ ahead atomic.Int64 }

func (c *wallClocks) set(f fault) {
	by := 24 * time.Hour
	if f == dayBack {
		by = -by
	}
	c.ahead.Store(int64(by))
}

var dateInRecord = regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]+"`)

// shift returns a record with its dates moved by what the clocks are ahead, in a
// direction of 1 or -1.
func (c *wallClocks) shift(data []byte, direction int64) []byte {
	by := time.Duration(direction * c.ahead.Load())
	if by == 0 {
		return data
	}
	return dateInRecord.ReplaceAllFunc(data, func(text []byte) []byte {
		at, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(text))
		if err != nil {
			return text
		}
		return []byte(at.Add(by).Format(`"` + time.RFC3339Nano + `"`))
	})
}
