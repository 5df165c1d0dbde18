// Package cli is the reeve command: a thin client of the registry's REST interface, and the door to `reeve dev`.
//
// Every command ends with one of six exit codes (exit.go). Everything that lists or gets writes a table for people, or,
// by -o, the registry's own objects as json or yaml. Results go to stdout; errors, warnings and progress to stderr, so
// that a pipe carries only results. Only what destroys data asks first.
package cli
