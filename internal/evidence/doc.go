// Package evidence decides what a 401 means. The credential may be dead, one node may
// not know it yet, a gateway may have refused the request, or one route may refuse every
// caller. The package keeps what is known about each credential, and which path has
// refused what. One pure function decides; see [Decide].
//
// The package defines the verdicts, and how one inquiry obtains a verdict for all
// callers that wait.
//
// It must not know HTTP, generations, how a credential is renewed, or how the platform
// is asked.
package evidence
