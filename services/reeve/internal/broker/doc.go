// Package broker is the embedded Kafka of `reeve dev`: one broker in this process, with its log on disk.
//
// It is franz-go's kfake with every write synced, so that what it acknowledged is there again after a SIGKILL:
// records, committed transactions, groups, offsets.
//
// A topic that a producer names comes into being, as on a Kafka with auto-creation; but not by kfake's own way, which
// writes such a topic to disk only at a clean end. Here a request for the metadata of an unknown topic waits until the
// topic was created like any other, and is answered then: nothing is ever accepted into a topic that a crash forgets.
package broker
