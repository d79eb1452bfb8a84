package agrentingtest

import (
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

const (
	idempotencyHeader    = "X-Idempotency-Key"
	idempotencyRetention = 24 * time.Hour
	// maxKeyedBody is the maximum size of a body that is read before the handler
	// runs, for the fingerprint.
	maxKeyedBody = 16 << 20
)

type idemState uint8

const (
	idemPending idemState = iota
	idemCompleted
	idemFailedFinal
	idemFailedRetriable
)

// idemScope is the SHA-256 hash of principal, route, and idempotency key, so
// that the idempotency key itself is not kept. The principal is the acting
// agent or user, not the credential, so that a lost rotation can be replayed
// after the key that began it was revoked.
type idemScope [sha256.Size]byte

func newIdemScope(principal, route, key string) idemScope {
	h := sha256.New()
	for _, part := range []string{principal, route, key} {
		sum := sha256.Sum256([]byte(part))
		_, _ = h.Write(sum[:]) // never fails
	}
	return idemScope(h.Sum(nil))
}

type idemRecord struct {
	state       idemState
	fingerprint [sha256.Size]byte
	began       time.Time
	status      int
	contentType string
	body        []byte
}

// idempotency stores the responses to writes with an idempotency key.
type idempotency struct {
	mu      sync.Mutex
	records map[idemScope]*idemRecord
	sweepAt int
}

func newIdempotency() *idempotency {
	return &idempotency{records: make(map[idemScope]*idemRecord), sweepAt: 1024}
}

// begin claims a scope. It returns a record that the caller must finish, a
// stored response, or a refusal.
func (m *idempotency) begin(scope idemScope, body []byte) (claimed, stored *idemRecord, _ *failure) {
	fingerprint := sha256.Sum256(body)
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if rec, ok := m.records[scope]; ok && now.Sub(rec.began) < idempotencyRetention {
		switch {
		case rec.fingerprint != fingerprint:
			return nil, nil, fail(http.StatusUnprocessableEntity, CodeIdempotencyMismatch,
				"this idempotency key was used with another request")
		case rec.state == idemPending:
			return nil, nil, fail(http.StatusConflict, CodeIdempotencyPending,
				"the first request with this idempotency key is still being processed")
		default:
			// A finished record is never changed again, so no copy is needed.
			return nil, rec, nil
		}
	}
	m.sweep(now)
	rec := &idemRecord{fingerprint: fingerprint, began: now}
	m.records[scope] = rec
	return rec, nil, nil
}

// finish stores the response of a claimed record.
func (m *idempotency) finish(rec *idemRecord, status int, contentType string, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec.status, rec.contentType, rec.body = status, contentType, body
	switch {
	case status >= 500:
		rec.state = idemFailedRetriable
	case status >= 400:
		rec.state = idemFailedFinal
	default:
		rec.state = idemCompleted
		if status < 300 {
			// The platform's idempotency page gives the status 200 for replays, also if
			// the first response had another status.
			rec.status = http.StatusOK
		}
	}
}

func (m *idempotency) sweep(now time.Time) {
	if len(m.records) < m.sweepAt {
		return
	}
	for scope, rec := range m.records {
		if now.Sub(rec.began) >= idempotencyRetention {
			delete(m.records, scope)
		}
	}
	m.sweepAt = max(1024, 2*len(m.records))
}
