package agrenting

import "runtime"

// Version is the version of the SDK. It is sent in User-Agent.
const Version = "0.1.0"

func userAgent(product string) string {
	own := "agrenting-go/" + Version + " (" + runtime.Version() + "; " + runtime.GOOS + ")"
	if product == "" {
		return own
	}
	return product + " " + own
}
