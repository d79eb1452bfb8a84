package agrenting

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Verify checks with one GET ([Routes].Verify) whether the platform accepts the
// client's credential. The call is renewed, resent, and retried like any other. Verify
// returns nil if the call succeeded, or was refused for a reason other than the
// credential, such as a missing scope.
//
// The error matches [ErrUnauthorized] if the platform does not accept the credential.
// After any other error, this is not known. The error is one of those of [Client.Do],
// such as [ErrRateLimited], [ErrServer], [ErrMalformedResponse] if the response is not
// JSON, [ErrNotFound] if the platform does not serve that path, and [ErrNoCredential]
// for a client without a credential.
func (c *Client) Verify(ctx context.Context) error {
	cred, err := c.Credential(ctx)
	if err != nil {
		return err
	}
	if cred.IsZero() {
		return fmt.Errorf("%w: the client is anonymous, and there is nothing to verify", ErrNoCredential)
	}
	var answer rawAnswer
	resp, err := c.Do(ctx, http.MethodGet, c.core.routes.Verify, nil, &answer)
	if api, ok := errors.AsType[*APIError](err); ok && recognized(api.StatusCode) {
		if api.Code == "" && api.Message == "" {
			return fmt.Errorf("%w: %w, which is not in the platform's format", ErrMalformedResponse, err)
		}
		c.core.creds.confirm(cred)
		return nil
	}
	if err != nil {
		if errors.Is(err, ErrUnauthorized) {
			c.core.creds.denied()
		}
		return err
	}
	if _, derr := wire.Decode(answer); derr != nil || (len(answer) == 0 && resp.StatusCode == http.StatusOK) {
		contentType := secret.Clean(resp.Header.Get("Content-Type"))
		return fmt.Errorf("%w: GET %s: %d %s, which is not in the platform's format. %s", ErrMalformedResponse,
			c.core.routes.Verify, resp.StatusCode, contentType, hint.NotPlatform(c.core.base.Host, contentType))
	}
	c.core.creds.confirm(cred)
	return nil
}

// confirm notes that the platform accepts a credential, if it is still in use.
func (k *credentialCache) confirm(cred Credential) {
	if k.latest().Equal(cred) {
		k.evidence.Verifies(cred.c)
	}
}

// denied notes that the platform does not know a fixed credential. Others were asked about
// before the 401 was returned.
func (k *credentialCache) denied() {
	gen := k.fixed.Load()
	if gen == nil || gen.Value.history == nil {
		return
	}
	gen.Value.history.Denied()
	if gen.Value.history.Report() {
		k.died()
	}
}

// recognized reports whether a refusal means that the credential was accepted before.
// 404 and 405 do not: the platform may not check the credential if it does not know the
// route.
func recognized(status int) bool {
	switch status {
	case http.StatusPaymentRequired, http.StatusForbidden, http.StatusConflict, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}
