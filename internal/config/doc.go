// Package config reads what a service is told by its environment.
//
// Every variable is named REEVE_…; CONTRACT in the repository's documentation lists them. A value that can't be used is an
// error that names the variable and the remedy; an unknown variable is only warned of, with the nearest name, since
// an environment is often shared with programs of another version. A variable that this version knows by name but
// doesn't carry out is refused, never accepted and ignored.
package config
