// Package hook calls functions of the program before and after an operation of the SDK.
// A function that panics does not end the operation.
//
// It must not know what the operation is or what the functions receive.
package hook
