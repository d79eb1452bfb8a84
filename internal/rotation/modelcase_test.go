package rotation

import (
	"flag"
	"strings"
)

// Every makes the pairs of faults complete, in both models, which takes minutes.
var Every = flag.Bool("every", false, "try every pair of faults of a rotation")

// ModelCase is one kind of rotation, in both models: that of this package, and
// that of clients.
type ModelCase struct {
	Strategy Strategy
	Owner    bool // there is an owner credential
	Lifeline bool // sessions outlive their key
	Slow     bool // a new key is not known at once
}

func (c ModelCase) String() string {
	parts := []string{c.Strategy.String()}
	for _, part := range []struct {
		on   bool
		name string
	}{{c.Owner, "owner"}, {c.Lifeline, "lifeline"}, {c.Slow, "slow keys"}} {
		if part.on {
			parts = append(parts, part.name)
		}
	}
	return strings.Join(parts, ", ")
}

// LosesKeys reports whether there is no way to a key whose response was lost.
func (c ModelCase) LosesKeys() bool { return c.Strategy == InPlace && !c.Owner && !c.Lifeline }

// ModelCases returns every kind of rotation.
func ModelCases() (all []ModelCase) {
	for _, s := range []Strategy{Overlap, InPlace} {
		for bits := range 8 {
			all = append(all, ModelCase{Strategy: s, Owner: bits&1 != 0, Lifeline: bits&2 != 0, Slow: bits&4 != 0})
		}
	}
	return all
}
