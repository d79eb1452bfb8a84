package origin

import "errors"

// The errors of this package.
var (
	// ErrForeign means that a path or a redirect leads to another origin than the
	// pinned ones.
	ErrForeign = errors.New("agrenting: foreign origin")
	// ErrInsecure means that plain http was refused.
	ErrInsecure = errors.New("agrenting: plain http refused")
	// ErrInvalid means that a URL or a path cannot be used. It is the error for
	// invalid options in general.
	ErrInvalid = errors.New("agrenting: invalid option")
)
