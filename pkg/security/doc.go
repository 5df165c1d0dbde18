// Package security is how a client gets through to a secured Kafka: TLS, SASL, and what an error of either means.
//
// A Config comes from the environment; Check refuses what can't work before anything is connected, and Opts makes the
// options of a client of it. Files of certificates, keys, passwords and tokens are read again when they change, so that
// what is short-lived can be rotated under a running process.
//
// A password or a token never appears in an error, a log line or a printed Config.
package security
