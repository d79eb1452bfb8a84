package evidence

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/internal/secret"
)

type askerFunc func(ctx context.Context, c secret.Credential) Verdict

func (f askerFunc) Verdict(ctx context.Context, c secret.Credential) Verdict { return f(ctx, c) }

func key(text string) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: secret.KindAPIKey, Secret: text})
}

// pass lets virtual time pass.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where these tests wait

func TestCanceledProbeDoesNotPublishVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first := make(chan struct{})
		n := 0
		p := NewProber(askerFunc(func(ctx context.Context, _ secret.Credential) Verdict {
			n++
			switch n {
			case 1:
				<-first
				return Unknown
			case 2:
				<-ctx.Done()
				return Unknown
			default:
				return Dead
			}
		}))
		go p.Judge(t.Context(), key("another"))
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(t.Context())
		go p.Judge(ctx, key("dead"))
		synctest.Wait()
		verdict := make(chan Verdict, 1)
		go func() { verdict <- p.Judge(t.Context(), key("dead")) }()
		synctest.Wait()
		close(first)
		synctest.Wait()
		cancel(errors.New("no time"))
		assert.Equal(t, Dead, <-verdict)
	})
}

func TestDeadIsAskedOnceAndAliveEachTime(t *testing.T) {
	t.Parallel()
	for verdict, calls := range map[Verdict]int{Dead: 1, Alive: 3, Unknown: 3} {
		n := 0
		p := NewProber(askerFunc(func(context.Context, secret.Credential) Verdict { n++; return verdict }))
		for range 3 {
			assert.Equal(t, verdict, p.Judge(t.Context(), key("k")))
		}
		assert.Equal(t, calls, n, "verdict %d", verdict)
	}
}

func TestFutileRenewalsEndTheBeliefInVerdicts(t *testing.T) {
	t.Parallel()
	p := NewProber(askerFunc(func(context.Context, secret.Credential) Verdict { return Dead }))
	p.RecordFutile()
	assert.Equal(t, Dead, p.Judge(t.Context(), key("k")))
	p.RecordFutile()
	assert.Equal(t, Unknown, p.Judge(t.Context(), key("k")))
	p.RecordAccepted()
	assert.Equal(t, Dead, p.Judge(t.Context(), key("k")))
}

func TestOneProbeServesAllCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, answer := 0, Alive
		p := NewProber(askerFunc(func(ctx context.Context, _ secret.Credential) Verdict {
			asked++
			select {
			case <-time.After(time.Second):
				return answer
			case <-ctx.Done():
				return Unknown
			}
		}))
		herd := func(want Verdict) {
			t.Helper()
			go p.Judge(t.Context(), key("k1"))
			synctest.Wait()
			pass(time.Millisecond)
			for range 10 {
				go func() { assert.Equal(t, want, p.Judge(t.Context(), key("k1"))) }()
			}
			pass(time.Minute)
			synctest.Wait()
		}
		herd(Alive)
		assert.Equal(t, 2, asked, "what was asked before the 401 does not explain it; one more answer serves all")
		answer = Dead
		herd(Dead)
		assert.Equal(t, 3, asked, "a dead credential stays dead")
		assert.Equal(t, Dead, p.Judge(t.Context(), key("k1")))
		assert.Equal(t, 3, asked)
		assert.Equal(t, Dead, p.Judge(t.Context(), key("k2")), "another one is asked about")
		assert.Equal(t, 4, asked)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.Equal(t, Unknown, p.Judge(ctx, key("k3")))
		assert.Equal(t, Dead, p.Judge(t.Context(), key("k3")), "a canceled caller publishes no verdict")
	})
}

func TestWaitForAProbeEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan struct{})
		p := NewProber(askerFunc(func(context.Context, secret.Credential) Verdict { <-asked; return Alive }))
		go p.Judge(t.Context(), key("another"))
		synctest.Wait()
		defer close(asked)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, Unknown, p.Judge(ctx, key("k1")))
	})
}
