// Package evidence keeps what is known about credentials, and therefore what a
// 401 means: the credential may be dead, or one route may refuse it.
//
// It knows verdicts, and how to ask for one on behalf of all who wait.
//
// It must not know HTTP, how a verdict is obtained, generations, or what is done
// about a dead credential.
package evidence
