package agrenting

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// BenchmarkGate is what a rotating key adds to each request: into the gate, and
// out again.
func BenchmarkGate(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		g := new(gate)
		b.ReportAllocs()
		for b.Loop() {
			passGate(g)
		}
	})
	b.Run("crowded", func(b *testing.B) {
		g := new(gate)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				passGate(g)
			}
		})
	})
	b.Run("none", func(b *testing.B) { // keys that are not rotated have none
		var g *gate
		b.ReportAllocs()
		for b.Loop() {
			passGate(g)
		}
	})
}

func passGate(g *gate) {
	if g.enter() {
		g.leave()
	}
}

//nolint:paralleltest // AllocsPerRun counts the whole process
func TestTheGateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	for name, g := range map[string]*gate{"a gate": new(gate), "none": nil} {
		assert.Zero(t, testing.AllocsPerRun(1000, func() { passGate(g) }), name)
	}
}
