// Package queue runs reports in order, one at a time, on a goroutine that exists only
// while there are reports. A report that is slow, panics, or ends its goroutine does
// not delay or stop the code that adds it.
//
// It must not know what a report is about.
package queue
