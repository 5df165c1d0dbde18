// Package positions keeps where the installation's groups stand, beside Kafka, and puts it back.
//
// Kafka forgets the committed offsets of a group that has had no members for offsets.retention.minutes (a week by
// default), however often they are committed meanwhile. An agent that is paused for a month, or an installation that
// stood still, would begin elsewhere: at the start of its topic, with everything again.
//
// So the registry that leads looks at all groups every few seconds, in a handful of requests, and copies what has changed
// into Postgres: the groups of agents on user topics and task topics, those on the topics of retries and webhooks, and
// those that say which dead letters were redriven. Where a group that has a copy has no position on Kafka, Kafka has
// forgotten it, and the copy is committed again.
//
// # Who commits
//
// The registry, by an ordinary commit to a group that has no members; Kafka refuses it where there are any. Nobody joins
// meanwhile: the agent's record in the control topic says that its positions are kept (spec.Kept), and a dispatcher or
// worker that finds none on Kafka then waits for the registry. So no position that a member has committed is overwritten,
// and none is put back for a topic that was made again: a copy counts only for the topic with its UUID, and for the life
// of the agent since its last complete deletion.
//
// # What happened after the last look
//
// When everything stops at once, what was moved in the last seconds before is in no copy. It is on Kafka: each look
// notes the end of the outcomes topic first, so what was settled since stands behind it, and what was dispatched since
// stands on the task topic or is settled. From both (recover.go) the positions are brought up to date before they are put
// back, so that nothing is run again that had ended.
package positions
