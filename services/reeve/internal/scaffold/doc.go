// Package scaffold makes the directory of an agent from a template: its entry in agents.yaml, its code, a sample event
// and a test that runs with nothing but the language's own tools.
//
// A directory that holds anything is never written to, and what a failed attempt has written is taken away again.
package scaffold
