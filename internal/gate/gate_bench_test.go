package gate

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// BenchmarkGate measures what a rotating key adds to each request.
func BenchmarkGate(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		g := new(Gate)
		b.ReportAllocs()
		for b.Loop() {
			passGate(g)
		}
	})
	b.Run("crowded", func(b *testing.B) {
		g := new(Gate)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				passGate(g)
			}
		})
	})
	b.Run("none", func(b *testing.B) { // keys that are not rotated have none
		var g *Gate
		b.ReportAllocs()
		for b.Loop() {
			passGate(g)
		}
	})
}

func passGate(g *Gate) {
	if g.Enter() {
		g.Leave()
	}
}

//nolint:paralleltest // AllocsPerRun counts the whole process
func TestGateDoesNotAllocate(t *testing.T) {
	for name, g := range map[string]*Gate{"a gate": new(Gate), "none": nil} {
		assert.Zero(t, testing.AllocsPerRun(1000, func() { passGate(g) }), name)
	}
}
