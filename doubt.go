package agrenting

// doubt counts what one request has been through because of 401s.
type doubt struct {
	waits    int // resends while the credential was young
	resends  int // other resends with a credential that may be alive
	switches int // to another generation
	renewals int
	last     bool // the platform was asked after the last resend
	renewed  bool // the source was asked because of the last 401
}

const (
	// maxSwitches bounds how often one attempt follows others to a newer generation, as
	// when a fleet rotates a shared key while requests are on the wire.
	maxSwitches = 16
	// maxRenewals bounds the renewals that one attempt causes.
	maxRenewals = 3
)
