package storetest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

// instant is a time that shows what a store rounds away.
func instant(days int) time.Time {
	return time.Date(2031, 2, 3+days, 4, 5, 6, 789_012_345, time.UTC)
}

// token is a secret that occurs nowhere else.
func token(prefix string) string { return prefix + rand.Text() }

// small is a record as a store holds it most of the time.
func small(generation uint64) agrenting.KeyRecord {
	return agrenting.KeyRecord{
		Generation: generation,
		Current: agrenting.StoredKey{
			Credential: agrenting.APIKey(token("sk_storetest_")),
			ID:         fmt.Sprintf("key-%d", generation), AgentID: "agent-1", Created: instant(0),
		},
	}
}

// full is a record with every field set, in the middle of a rotation. turn
// decides which kind of credential is where.
func full(generation uint64, turn int) agrenting.KeyRecord {
	kinds := []func() agrenting.StoredKey{
		func() agrenting.StoredKey {
			return agrenting.StoredKey{
				Credential: agrenting.APIKey(token("sk_sandbox_")), ID: "key-1", AgentID: "agent-ä",
				Created: instant(1), Expires: instant(2),
			}
		},
		func() agrenting.StoredKey {
			return agrenting.StoredKey{
				Credential: agrenting.UserToken(token("ap_")), ID: `"2" \ <&>`, AgentID: "agent-2", Created: instant(3),
			}
		},
		func() agrenting.StoredKey {
			return agrenting.StoredKey{
				Credential: agrenting.SessionToken(token("eyJ.")+"/+=.~", instant(4)), Expires: instant(4),
			}
		},
	}
	return agrenting.KeyRecord{
		Generation: generation,
		Current:    kinds[turn%3](),
		Pending:    kinds[(turn+1)%3](),
		Previous:   kinds[(turn+2)%3](),
		Intent: &agrenting.Intent{
			Key: "5f1d5b0e-8f0c-4f55-9a0e-0a64c1b1d7aa", Strategy: agrenting.Overlap, Stage: agrenting.StageVerify,
			From: "sha256:0123456789", Generation: generation + 1, Owner: "owner-1",
			Lease: instant(5), Started: instant(6), Attempts: 3, Known: []string{"key-1", "key-2"},
			Lifeline: agrenting.SessionToken(token("session-"), instant(7)),
		},
		Ancestors: []string{"sha256:aaaaaaaaaa", "sha256:bbbbbbbbbb"},
	}
}

// large is a record of the greatest size that the SDK makes in earnest.
func large() agrenting.KeyRecord {
	rec := full(1<<63, 0)
	rec.Current.Credential = agrenting.APIKey(token("sk_live_" + strings.Repeat("0123456789", 25)))
	rec.Intent.Lifeline = agrenting.SessionToken(token(strings.Repeat("eyJhbGciOi", 150)), instant(8))
	rec.Intent.Known = nil
	for i := range 50 {
		rec.Intent.Known = append(rec.Intent.Known, fmt.Sprintf("5f1d5b0e-8f0c-4f55-9a0e-%012d", i))
	}
	rec.Ancestors = nil
	for i := range 64 {
		rec.Ancestors = append(rec.Ancestors, fmt.Sprintf("sha256:%010x", i))
	}
	return rec
}

// difference says how got differs from want, "" if it does not. No secret is
// in it.
func difference(want, got agrenting.KeyRecord) string {
	var d diff
	d.check("Generation", want.Generation, got.Generation)
	d.key("Current", want.Current, got.Current)
	d.key("Pending", want.Pending, got.Pending)
	d.key("Previous", want.Previous, got.Previous)
	d.check("Ancestors", strings.Join(want.Ancestors, " "), strings.Join(got.Ancestors, " "))
	a, b := want.Intent, got.Intent
	if a == nil || b == nil {
		d.check("Intent is nil", a == nil, b == nil)
		return d.String()
	}
	d.check("Intent.Key", a.Key, b.Key)
	d.check("Intent.Strategy", a.Strategy, b.Strategy)
	d.check("Intent.Stage", a.Stage, b.Stage)
	d.check("Intent.From", a.From, b.From)
	d.check("Intent.Generation", a.Generation, b.Generation)
	d.check("Intent.Owner", a.Owner, b.Owner)
	d.instant("Intent.Lease", a.Lease, b.Lease)
	d.instant("Intent.Started", a.Started, b.Started)
	d.check("Intent.Attempts", a.Attempts, b.Attempts)
	d.check("Intent.Known", strings.Join(a.Known, " "), strings.Join(b.Known, " "))
	d.credential("Intent.Lifeline", a.Lifeline, b.Lifeline)
	return d.String()
}

type diff []string

func (d *diff) String() string { return strings.Join(*d, "; ") }

func (d *diff) check(name string, want, got any) {
	if want != got {
		*d = append(*d, fmt.Sprintf("%s is %v, want %v", name, got, want))
	}
}

func (d *diff) instant(name string, want, got time.Time) {
	if !want.Equal(got) {
		*d = append(*d, fmt.Sprintf("%s is %v, want %v", name, got, want))
	}
}

func (d *diff) credential(name string, want, got agrenting.Credential) {
	if !want.Equal(got) {
		*d = append(*d, fmt.Sprintf("%s is %v, want %v", name, got, want))
	}
	d.instant(name+"'s end", want.Expires(), got.Expires())
}

func (d *diff) key(name string, want, got agrenting.StoredKey) {
	d.credential(name+".Credential", want.Credential, got.Credential)
	d.check(name+".ID", want.ID, got.ID)
	d.check(name+".AgentID", want.AgentID, got.AgentID)
	d.instant(name+".Created", want.Created, got.Created)
	d.instant(name+".Expires", want.Expires, got.Expires)
}

// secretsOf are the secrets of a record.
func secretsOf(rec agrenting.KeyRecord) []string {
	all := []string{rec.Current.Credential.Reveal(), rec.Pending.Credential.Reveal(), rec.Previous.Credential.Reveal()}
	if rec.Intent != nil {
		all = append(all, rec.Intent.Lifeline.Reveal())
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// leaks reports whether a text shows one of the secrets, plain or encoded.
func leaks(text string, secrets []string) bool {
	return slices.ContainsFunc(secrets, func(s string) bool {
		b := []byte(s)
		return strings.Contains(text, s) ||
			strings.Contains(text, base64.RawStdEncoding.EncodeToString(b)) ||
			strings.Contains(text, base64.RawURLEncoding.EncodeToString(b)) ||
			strings.Contains(strings.ToLower(text), hex.EncodeToString(b))
	})
}
