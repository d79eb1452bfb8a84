// Package command runs a program that prints a credential. It defines how the program is
// started and ended, which variables it inherits, and which forms of output it may print.
//
// It must not know what the credential is used for or when the program runs again.
package command
