// Package origin knows where a credential may go: the pinned origins, which URLs and
// paths belong to them, what a redirect loses, and which headers identify the sender.
//
// It must not know the credential itself, how a request is sent, or what the
// platform answers.
package origin
