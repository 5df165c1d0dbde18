// Package route is the routing core: what becomes of a user's record for one agent, as a function of values. It talks to
// no broker; the dispatcher and the test kit stand on it.
//
// A task record has its event's key and value byte for byte, the user's headers as they came, and Reeve's own metadata in
// further headers. Headers that begin with reeve- are Reeve's: of a user's only those that an event may bring along
// (correlation id, causation id, tenant, source, reply-to, webhook, type) are read, the others are dropped. An event that
// claims a format and isn't in it is routed all the same, with its error class; the worker rejects it unrun, so that
// nothing bad ever stops a partition. So is one whose filter can't be evaluated, and one of a type that the agent doesn't
// take, unless its spec says otherwise.
package route
