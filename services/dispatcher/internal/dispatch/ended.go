package dispatch

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/worker"
)

// A task that a dispatcher settles itself ends in the transaction of its outcome, which also tells whoever asked for it: by a
// webhook, by a reply. A reply goes where an event says, and must never be in the way of what else moves.

// A Settler is a Rule that settles tasks which aren't on its topic yet.
type Settler interface {
	Rule
	// Settled are the tasks that were settled since the last Ended, by their outcomes.
	Settled() map[*kgo.Record]*kgo.Record
}

// tell adds the webhooks and replies of the tasks that end with a batch, behind its records. What users write on their own
// topics says nothing about tasks: there the rule has them.
func (c *Carrier) tell(ctx context.Context, b *batch) {
	b.told = len(b.records)
	names := c.cfg.Member.Names
	var tasks map[*kgo.Record]*kgo.Record
	if rule, ok := c.cfg.Rule.(Settler); ok {
		tasks = rule.Settled()
	}
	if len(tasks) == 0 && !names.Reserved(c.cfg.Member.Topic) {
		return
	}
	outcomes := names.Outcomes()
	var (
		endings []worker.Ending
		sources []*kgo.Record // of these
	)
	for i, out := range b.records[:b.told] {
		if out.Topic != outcomes {
			continue
		}
		of := b.sources[i]
		if tasks != nil {
			of = tasks[out]
		}
		if of == nil {
			continue
		}
		endings, sources = append(endings, worker.Ending{Task: of, Outcome: out}), append(sources, b.sources[i])
	}
	for i, told := range c.cfg.Unrun.Ended(ctx, endings...) {
		for _, r := range told {
			b.records, b.sources = append(b.records, r), append(b.sources, sources[i])
		}
	}
}

// failed tells the rule of the records of a batch that were refused, but those that tell of ended tasks.
func (c *Carrier) failed(ctx context.Context, b batch, err error) {
	for i, reason := range c.cfg.Unrun.NotCommitted(ctx, b.records, b.told, err) {
		c.cfg.Rule.Refused(ctx, b.sources[i], reason)
	}
}
