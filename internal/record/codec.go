package record

import (
	"encoding/json"
	"fmt"
	"time"
)

// Version is the version of the encoding. Records of other versions are refused
// and left intact, so that an older program does not destroy what a newer one has
// written.
const Version = 2

// Identity says where a record belongs. A field that is not known is empty.
type Identity struct{ Origin, Environment, Agent string }

// mismatch returns the first field that is known on both sides and differs.
func (i Identity) mismatch(other Identity) (field, mine, theirs string) {
	for _, f := range []struct{ name, mine, theirs string }{
		{"origin", i.Origin, other.Origin},
		{"environment", i.Environment, other.Environment},
		{"agent", i.Agent, other.Agent},
	} {
		if f.mine != "" && f.theirs != "" && f.mine != f.theirs {
			return f.name, f.mine, f.theirs
		}
	}
	return "", "", ""
}

// Lease is the right to work on a record. It ends when the record's revision has
// not changed for Duration. The zero value means that there is no lease.
type Lease struct {
	// Holder is a random name of a process.
	Holder   string
	Duration time.Duration
	// Counter counts the writes under leases, so that each of them changes the
	// record.
	Counter uint64
}

// header is the outer JSON object of every record.
type header struct {
	Version     int        `json:"version"`
	Kind        string     `json:"kind"`
	Write       string     `json:"write"`
	Origin      string     `json:"origin,omitempty"`
	Environment string     `json:"environment,omitempty"`
	Agent       string     `json:"agent,omitempty"`
	Lease       *leaseJSON `json:"lease,omitempty"`
	Counter     uint64     `json:"counter,omitempty"`
	Body        any        `json:"body"`
}

type leaseJSON struct {
	Holder   string `json:"holder"`
	Duration string `json:"duration"`
}

// codec encodes the body of one kind of record.
type codec[T any] struct {
	kind string
	// encode returns the value that is encoded as JSON. empty returns a pointer to
	// decode the JSON into, and decode takes that pointer.
	encode func(T) (any, error)
	empty  func() any
	decode func(any) (T, error)
	// agent returns the ID of the agent that a body belongs to. setAgent returns
	// the body with that ID.
	agent    func(T) string
	setAgent func(T, string) T
}

func (c codec[T]) marshal(e Entry[T], of Identity) ([]byte, error) {
	body, err := c.encode(e.Body)
	if err != nil {
		return nil, err
	}
	h := header{
		Version: Version, Kind: c.kind, Write: e.write, Origin: of.Origin, Environment: of.Environment,
		Agent: c.agent(e.Body), Counter: e.Lease.Counter, Body: body,
	}
	if h.Agent == "" {
		h.Agent = of.Agent
	}
	if l := e.Lease; l.Holder != "" {
		h.Lease = &leaseJSON{Holder: l.Holder, Duration: l.Duration.String()}
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if b = append(b, '\n'); len(b) > MaxSize {
		return nil, fmt.Errorf("%w: it has %d bytes, and at most %d are stored", ErrInvalid, len(b), MaxSize)
	}
	return b, nil
}

// unmarshal decodes a record. The error does not show any part of the data.
func (c codec[T]) unmarshal(data []byte) (Entry[T], Identity, error) {
	kind := ErrInvalid
	fail := func(format string, args ...any) (Entry[T], Identity, error) {
		return Entry[T]{}, Identity{}, fmt.Errorf("%w: %s; it was left intact", kind, fmt.Sprintf(format, args...))
	}
	h := header{Body: c.empty()}
	jsonErr := json.Unmarshal(data, &h)
	switch {
	case len(data) == 0:
		return fail("it is empty")
	case jsonErr != nil && !json.Valid(data):
		return fail("it is not JSON, so it may be damaged or sealed")
	case h.Version == 1:
		kind = ErrOtherVersion
		return fail("it was written by an older build, whose records have another format; " +
			"move it away and fill the store again from a live key")
	case h.Version != Version:
		kind = ErrOtherVersion
		return fail("it has version %d and this program supports version %d; use the program that wrote it, or a newer one",
			h.Version, Version)
	case h.Kind != c.kind:
		return fail("it is not a %s record", c.kind)
	case jsonErr != nil || h.Body == nil:
		return fail("its body is malformed")
	}
	e := Entry[T]{Lease: Lease{Counter: h.Counter}, write: h.Write}
	if h.Lease != nil {
		d, err := time.ParseDuration(h.Lease.Duration)
		if err != nil || d <= 0 || h.Lease.Holder == "" {
			return fail("its lease is malformed")
		}
		e.Lease.Holder, e.Lease.Duration = h.Lease.Holder, d
	}
	body, err := c.decode(h.Body)
	if err != nil {
		return Entry[T]{}, Identity{}, err
	}
	e.Body = c.setAgent(body, h.Agent)
	return e, Identity{Origin: h.Origin, Environment: h.Environment, Agent: h.Agent}, nil
}
