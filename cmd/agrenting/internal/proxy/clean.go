package proxy

import (
	"net/http"
	"strings"
	"sync"

	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/redact"
)

// cleanTexts remembers names and values of headers that do not contain the credential. Most of
// them recur in every response, and a search takes longer than all other work of the proxy.
type cleanTexts struct {
	mu         sync.RWMutex
	generation uint64 // the generation of the credential
	texts      map[string]struct{}
}

const (
	// maxTexts bounds the number of texts. The texts of one response are far fewer.
	maxTexts = 256
	// maxText is the longest text that is remembered, in bytes.
	maxText = 128
)

// has reports whether all names and values of h are known to be clean of the credential of
// a generation.
func (t *cleanTexts) has(generation uint64, h http.Header) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if generation == 0 || generation != t.generation {
		return false
	}
	for name, values := range h {
		if _, ok := t.texts[name]; !ok {
			return false
		}
		for _, v := range values {
			if _, ok := t.texts[v]; !ok {
				return false
			}
		}
	}
	return true
}

// unknown returns the names and values of h that were not searched yet, each followed by a
// separator.
func (t *cleanTexts) unknown(generation uint64, h http.Header) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var all []string
	add := func(text string) {
		if _, ok := t.texts[text]; !ok || generation != t.generation {
			all = append(all, text)
		}
	}
	for name, values := range h {
		add(name)
		for _, v := range values {
			add(v)
		}
	}
	return all
}

// add remembers texts that are clean of the credential of a generation.
func (t *cleanTexts) add(generation uint64, texts []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if generation < t.generation || generation == 0 {
		return
	}
	if generation > t.generation || len(t.texts)+len(texts) > maxTexts {
		t.generation, t.texts = generation, map[string]struct{}{}
	}
	for _, text := range texts {
		if len(text) <= maxText && len(t.texts) < maxTexts {
			t.texts[strings.Clone(text)] = struct{}{}
		}
	}
}

// redactHeader removes the credential of the request from names and values of h.
func (c *call) redactHeader(h http.Header) {
	known, generation := &c.proxy.clean, c.sent.Generation
	if known.has(generation, h) {
		return
	}
	texts := known.unknown(generation, h)
	if all := strings.Join(texts, redact.Separator); c.sent.Redact(all) == all {
		known.add(generation, texts)
		return
	}
	redact.Func(c.sent.Redact).Header(h)
}
