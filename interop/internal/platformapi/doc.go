// Package platformapi is a client of the platform as oapi-codegen generates it
// from the API's description, to show that it works above the SDK. Programs have
// no need for it: the SDK has these calls.
package platformapi
