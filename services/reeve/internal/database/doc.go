// Package database is the private Postgres of `reeve dev`: a child process on a Unix socket in the data directory.
//
// It takes the server that is installed, or fetches one once into a cache directory. Nothing but the socket is listened
// on, and only the directory's owner gets at it.
//
// Its end is tied to this process three times: Close stops it in order; when this process dies the kernel sends it
// SIGQUIT, which makes it end at once with a clean recovery later; and a start that finds one still alive on its
// directory ends that first. The caller holds the data directory for itself, so such a one is nobody else's.
//
// Postgres refuses to run as root. Under root it runs as another user, who gets the files below the directory and
// passes through what leads there by one capability, where permissions wouldn't let him.
package database
