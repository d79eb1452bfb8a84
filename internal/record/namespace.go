package record

import (
	"context"
	"fmt"
	"iter"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Namespace is a part of a store. The names of its records have a prefix and a
// dot in front.
type Namespace struct {
	inner  Store
	prefix string // with the dot
}

// PrefixProblem returns what is wrong with the prefix of a namespace, in words
// that follow a noun, or "" if the prefix is valid. A valid prefix leaves room
// for the SDK's names.
func PrefixProblem(prefix string) string {
	if problem := NameProblem(prefix); problem != "" {
		return problem
	}
	if longest := len(prefix) + 1 + len(SessionName("", "")); longest > MaxName {
		return fmt.Sprintf("is %d characters too long", longest-MaxName)
	}
	return ""
}

// NewNamespace returns a part of a store. The prefix must not have a
// [PrefixProblem].
func NewNamespace(inner Store, prefix string) *Namespace {
	return &Namespace{inner: inner, prefix: prefix + "."}
}

// fullName returns the name of a record of s in the store without namespaces.
func fullName(s Store, name string) string {
	for {
		n, ok := s.(*Namespace)
		if !ok {
			return name
		}
		s, name = n.inner, n.prefix+name
	}
}

// String returns a name for the store and the part.
func (n *Namespace) String() string {
	return "agrenting.Namespace(" + secret.NameOf(n.inner) + ", " + n.prefix + ")"
}

// ShowsNoSecret implements [secret.Named].
func (*Namespace) ShowsNoSecret() {}

// Load implements [Store].
func (n *Namespace) Load(ctx context.Context, name string) (Raw, error) {
	return n.inner.Load(ctx, n.prefix+name)
}

// Save implements [Store].
func (n *Namespace) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	return n.inner.Save(ctx, n.prefix+name, data, previous)
}

// Notify implements [Notifier].
func (n *Namespace) Notify(name string, changed func()) (stop func()) {
	return notify(n.inner, n.prefix+name, changed)
}

// Watch implements [Store].
func (n *Namespace) Watch(ctx context.Context, name string) iter.Seq2[Raw, error] {
	return n.inner.Watch(ctx, n.prefix+name)
}
