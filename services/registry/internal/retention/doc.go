// Package retention says when events that wait for an agent will be removed by their topic's retention, and warns before.
//
// An agent that is paused, or slower than its events, leaves them on the user's topic, where retention.ms and
// retention.bytes go on. A record is removed when it is older than retention.ms (with its whole segment, so never
// earlier), or when what came after it fills retention.bytes. Every registry looks at all agents that have events waiting;
// the one that leads raises the alert and takes it back.
package retention
