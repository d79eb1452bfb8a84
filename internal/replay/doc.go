// Package replay knows how a request can be sent once more without buffering it: how
// its body is obtained again, and how the response of the earlier attempt is ended so
// that neither its connection nor the body is in use any longer.
//
// It must not know why a request is sent again, with which credential, or how often.
package replay
