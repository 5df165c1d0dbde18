// Package filter decides by a CEL expression (Common Expression Language, https://cel.dev) whether an event is for an
// agent. An expression sees
//
//	data      the event's content: a JSON value; null where the content is no JSON, or there is none
//	headers   the record's headers, name to text; of several with one name the last counts
//	key       the record's key as text; "" where it has none
//	topic     the user's topic
//	type      the task's type (see event.Type); "" where nothing says one
//	envelope  what the event says of itself: id, type, correlation_id, causation_id, tenant_id, source, reply_to, webhook
//	          (null where it doesn't say it), created_at (a timestamp) and delivery_attempts (an int)
//
// and is true or false. Of numbers in data, those that are written as whole numbers are ints, the others doubles. Bytes
// that aren't UTF-8 are U+FFFD. A field that isn't there is an error, and not false: has(data.field), or
// data.?field.orValue(""), ask first.
//
// What one evaluation may cost is bounded, whatever the event holds. This package is the only one that builds the CEL
// compiler: route and the SDK know a filter as an interface.
package filter
