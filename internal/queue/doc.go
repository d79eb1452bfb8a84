// Package queue runs reports in order, one at a time, on a goroutine that lives only
// while there are any. A slow, panicking, or ending report does not delay or stop the
// code that adds it.
//
// It must not know what a report is about.
package queue
