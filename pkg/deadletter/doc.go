// Package deadletter says what a command about dead letters means for each of them: what the dispatcher carries out is what
// the registry has counted before.
//
// A dead letter is open until a commit of the agent's dead-letter group settles it; package offsets has the ledger that such
// a commit says.
package deadletter
