package agrenting

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Verify asks the platform whether it knows the client's credential, by one
// cheap GET ([Routes].Verify) that is renewed, replayed and retried like any
// other. Nil means that it does: the call went through, or was refused for
// another reason than the credential, such as a missing scope.
//
// [ErrUnauthorized] means that it does not. Anything else leaves the question
// open, and says why: the typed errors of [Client.Do], among them
// [ErrRateLimited], [ErrServer] and, where the platform does not serve that
// path, [ErrNotFound]; [ErrNoCredential] for a client without one.
func (c *Client) Verify(ctx context.Context) error {
	cred, err := c.Credential(ctx)
	if err != nil {
		return err
	}
	if cred.IsZero() {
		return fmt.Errorf("%w: the client is anonymous, and there is nothing to verify", ErrNoCredential)
	}
	_, err = c.Do(ctx, http.MethodGet, c.core.routes.Verify, nil, nil)
	if api, ok := errors.AsType[*APIError](err); ok && recognized(api.StatusCode) {
		return nil
	}
	return err
}

// recognized reports whether a refusal comes from behind the check of the
// credential. 404 and 405 need not: where there is no such route, none is
// looked at.
func recognized(status int) bool {
	switch status {
	case http.StatusPaymentRequired, http.StatusForbidden, http.StatusConflict, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}
