package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// deadAfter is how many consecutive refusals prove that a credential is dead.
const deadAfter = 3

// verify asks the platform about a credential. The verdict Dead takes more than one refusal,
// because a gateway may refuse a single call.
func verify(ctx context.Context, p Platform, policy *Policy, cred secret.Credential) (v Verdict, err error) {
	for n := 1; ; n++ {
		v, err = verifyOnce(ctx, p, policy, cred)
		if v != Dead || n == deadAfter {
			return v, err
		}
		if serr := renew.Sleep(ctx, verifyPause(n)); serr != nil {
			return Undecided, errors.Join(err, serr)
		}
	}
}

func verifyOnce(ctx context.Context, p Platform, policy *Policy, cred secret.Credential) (Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, policy.CallTimeout)
	defer cancel()
	return p.Verify(ctx, cred)
}

// failed returns the error of a call, or the reason why the call could not be made.
func failed(a Answer, err error) error {
	switch {
	case err != nil:
		return err
	case a.Outcome == Done:
		return nil
	case a.Err == nil:
		return errors.New("agrenting: the platform sent no usable response")
	default:
		return a.Err
	}
}

// isInitial reports whether a key may be the initial key. It returns true if there is no
// initial key.
func isInitial(ctx context.Context, keys Keys, c secret.Credential) bool {
	if !keys.HasInitial() {
		return true
	}
	initial, err := initialKey(ctx, keys)
	return err == nil && initial.Equal(c)
}

// sourceTimeout limits one call of a source of keys, because a rotation has no deadline. A
// command may take 25 s, and a renewal may take 30 s, so it has time for what comes next.
const sourceTimeout = 26 * time.Second

// initialKey returns the initial key. It waits at most sourceTimeout.
func initialKey(ctx context.Context, keys Keys) (secret.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	return keys.Initial(ctx)
}
