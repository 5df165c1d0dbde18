// Package doctor examines what a service stands on as that service would see it: the brokers and the way to them, the
// topics with their settings, the rights, the database, the interpreters of agents.
//
// It changes nothing. A right is found by what the broker says that this client may do, and where it says nothing of that
// kind, by a request that does nothing even where it is allowed.
package doctor
