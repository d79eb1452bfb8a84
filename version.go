package agrenting

import "runtime"

// Version is the version of the SDK. It is sent in User-Agent.
const Version = "0.1.0"

// ownUserAgent is the SDK's own product, which all clients share.
var ownUserAgent = "agrenting-go/" + Version + " (" + runtime.Version() + "; " + runtime.GOOS + ")"

func userAgent(product string) string {
	if product == "" {
		return ownUserAgent
	}
	return product + " " + ownUserAgent
}
