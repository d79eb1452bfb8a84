// Package evidence decides what a 401 means: the credential may be dead, one node may
// not know it yet, a gateway may have refused the request, or one route may refuse every
// caller. It keeps what is known about each credential, and what was refused by which
// path. One pure function decides; see [Decide].
//
// It knows verdicts, and how to obtain one on behalf of all who wait.
//
// It must not know HTTP, generations, how a credential is renewed, or how the platform
// is asked.
package evidence
