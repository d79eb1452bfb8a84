package durable

import "time"

// An operation on a file that another process has open is repeated for up to this
// long. Readers and writers have a file open for milliseconds.
const (
	sharingPatience = 2 * time.Second
	sharingPause    = 5 * time.Millisecond
)

// whileInUse repeats do as long as inUse reports that its error is due to another
// process having the file open. It returns the last error.
func whileInUse(inUse func(error) bool, do func() error) error {
	for deadline := time.Now().Add(sharingPatience); ; {
		err := do()
		if err == nil || !inUse(err) || !time.Now().Before(deadline) {
			return err
		}
		time.Sleep(sharingPause) //nolint:forbidigo // bounded, and on Windows only
	}
}
