// Package origin decides where a credential may be sent. It defines the pinned
// origins, which URLs and paths belong to them, what a redirect removes, and which
// headers identify the sender.
//
// It must not know the credential itself, how a request is sent, or what the platform
// responds.
package origin
