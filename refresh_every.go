package agrenting

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// RefreshEvery returns a source that is src, asked again at intervals: by the first request after
// each interval, such as 5 minutes, in the background. It is for sources whose credential has no
// expiry but is replaced now and then, so that a new one is used before the platform rejects
// the old one. Without requests, src is not asked. If it fails, the credential in use
// continues to be used.
//
//	src := agrenting.RefreshEvery(agrenting.CommandSource("vault", "kv", "get", "-field=key", "secret/agrenting"), 5*time.Minute)
//
// A credential that expires is renewed ahead of that as without RefreshEvery. Of two intervals
// around each other, the outer one counts. An interval of zero or less means that src is asked
// only when a credential is needed. If src is nil, the source fails with [ErrNoCredential].
func RefreshEvery(src CredentialSource, interval time.Duration) CredentialSource {
	if src == nil {
		src = CredentialSourceFunc(func(context.Context) (Credential, error) {
			return Credential{}, fmt.Errorf("%w: the source of RefreshEvery is nil", ErrNoCredential)
		})
	}
	return &refreshing{src, max(0, interval)}
}

type refreshing struct {
	source CredentialSource
	every  time.Duration
}

var _ Refresher = (*refreshing)(nil)

func (r *refreshing) Credential(ctx context.Context) (Credential, error) {
	return credentialFrom(ctx, r.source)
}

func (r *refreshing) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	return refreshFrom(ctx, r.source, rejected)
}

func (r *refreshing) recheck() time.Duration { return r.every }
func (r *refreshing) cheap() bool            { return isCheap(r.source) }

// sourceName names the source in use.
func (r *refreshing) sourceName() string {
	if n, ok := r.source.(interface{ sourceName() string }); ok {
		return n.sourceName()
	}
	return ""
}

func (r *refreshing) String() string {
	inner := &chain{sources: []CredentialSource{r.source}}
	return "agrenting.RefreshEvery(" + strings.TrimPrefix(inner.describe(0), "source 1 ") + ", " + r.every.String() + ")"
}

// ShowsNoSecret implements [secret.Named].
func (*refreshing) ShowsNoSecret() {}
