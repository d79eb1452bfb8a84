// Package replay makes it possible to send a request once more without buffering it.
// It obtains the body again, and ends the response of the earlier attempt so that
// neither its connection nor the body is in use.
//
// It must not know why a request is sent again, with which credential, or how often.
package replay
