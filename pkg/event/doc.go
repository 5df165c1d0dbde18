// Package event tells what a record on a user's topic is (raw bytes, a CloudEvent in binary or structured mode, or Reeve's
// own envelope) and renders a task's payload for an agent.
//
// A record counts as an envelope or a CloudEvent only when it says so by its headers, or, for an envelope, when it is
// a JSON object whose topic is this topic and which has payload.content. Anything else is raw. A record that claims a
// format by its headers and doesn't parse gives a *FormatError; everything else is an event.
//
// Both functions are on the path of every event. Content is never unmarshalled: a scanner finds the fields it needs and
// checks what it passes on, so that an agent is handed well-formed JSON on a single line whatever a producer wrote.
// Numbers and spacing inside content stay as they came.
//
// Sources: CloudEvents 1.0.2, its JSON format and Kafka protocol binding; RFC 8259.
package event
