// Package cli is the reeve command: a thin client of the registry's REST interface, and the door to `reeve dev`.
//
// Every command ends with one of six exit codes (exit.go). Everything that lists or shows writes a table for people, or,
// by -o, the registry's own objects (output.go); what changes can be followed by --watch (watch.go). Results go to stdout;
// errors, warnings and progress to stderr, so that a pipe carries only results. Only what destroys data asks first.
//
// Which registry is asked, and by whose word, is decided in connect.go. An error says what to do about it: most of that
// comes from the registry, and what only this side knows is in remedy.go.
package cli
