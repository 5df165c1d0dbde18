// Package redrive carries out what people ask of dead letters: to send them to their agent once more, or to delete them. The
// webhooks that were given up are dead letters too: they are sent off to their endpoints once more.
//
//	Desks    takes orders; the one dispatcher that leads works on them, a Desk for each dead-letter topic that has any
//	Desk     holds the topic's group and carries its orders out, one after the other
//	target   who gets them once more: all that differs between an agent's tasks and webhooks
//	Ledger   which dead letters are settled, redriven or purged: what the group's commits say
//	Pace     how many tasks of one failure may be under way, and when it is hopeless: a pure decision
//	Returns  what becomes of redriven tasks, from the outcomes topic; of webhooks, from the status topic
//
// A redrive is a hop: the records on the task topic and the commit that settles their dead letters are one transaction,
// fenced by the group. So an order may come any number of times and its dispatcher may die at any moment: each dead
// letter is redriven once. It begins with few tasks of each failure and grows with those that succeed; where they come back
// dead as they were, it stops by itself and the rest stays. While the agent isn't active, orders wait and dead letters stay
// where they are.
//
// The package must never settle a dead letter outside of a commit that says so, and never touch one that came after its
// order was given.
package redrive
