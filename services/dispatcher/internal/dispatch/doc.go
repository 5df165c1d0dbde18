// Package dispatch is the dispatcher's work: it takes events from user topics to the agents' task topics, and due retries
// from the tiers' topics to where they came from, each in a Kafka transaction together with the consumed offset.
//
//	Fleet    what there is to do: follows the desired state of all agents, one Keeper each
//	Keeper   converges one agent: waits for its user topic, routes while the agent is active, leaves the group otherwise,
//	         deletes what a complete deletion takes
//	Carrier  consumes one topic as a group member and moves on what its Rule lets pass; everything that isn't let pass
//	         yet is held in memory, never dropped and never waited for while other partitions could go on
//	Lane     the Rule of an agent: a record passes when its task partition has Room
//	Tier     the Rule of a retry tier: a record passes when it's due
//	WebhookTier  the Rule of a topic where webhooks wait; package deliver sends them
//	Purge    the Rule of a task topic that is to be deleted: every task left is settled as discarded
//	Gauge    looks at the length of all task queues, many agents a request
//	Upkeep   what one dispatcher does for all: trimming, deleting what is left of deleted agents
//	Reporter heartbeats, reports and alerts
//
// It keeps nothing that it couldn't lose: positions are in Kafka, desired state is in the control topic. Nothing is logged
// per event.
package dispatch
