// Package deliver sends the results of tasks to the URLs that events name, by Standard Webhooks, at least once.
//
//	reeve.webhooks ─► queue of its endpoint ─► POST ─► 2xx: delivered
//	      ▲                    │                  └──► else: reeve.webhooks.<tier>, or given up: reeve.dlq.webhooks
//	      └── due ◄── reeve.webhooks.<tier> ◄── the endpoint is busy or down: it wasn't tried
//
// The offset of a webhook is committed together with what became of it, and never before: a kill repeats what was in
// flight. Receivers know a repeat by its webhook-id, which is made of the task and its round.
//
// # What must never happen
//
//   - A slow or dead endpoint delays another: each has few places in flight and a short queue, and what finds no place in
//     time goes back to wait on Kafka, so that the window of a partition always moves on.
//   - An address is reached that isn't public or allowed. That is the dialer's to decide, see package egress.
//   - Anything but a 2xx counts as delivered. Redirects are answers like others.
//   - A URL's path or query stands in a log, a metric or an alert: they may be secrets.
package deliver
