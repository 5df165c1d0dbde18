// Package kafka is how a service reaches Kafka: client options, a connection that was checked, the settings of Reeve's
// own topics, trimming behind committed offsets, and the list of all topics and rights that an installation needs.
//
// Every topic is created with explicit settings by the service that writes it, because a broker's defaults (a time-based
// retention above all) would lose work that was already accepted.
package kafka
