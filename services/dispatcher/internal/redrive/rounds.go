package redrive

import (
	"context"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// Opened gives the rounds that are opened by records of which each is the first of a further round, if it is for a task topic:
// the others are about tasks that end at once, or are none.
func Opened(tasks string, records []*kgo.Record) (opened []status.Round) {
	for _, r := range records {
		if n := route.Redrives(r); r.Topic == tasks && n > 0 {
			opened = append(opened, status.Round{Task: route.Header(r, task.HeaderOrigin), Round: n})
		}
	}
	return opened
}

// tellOpened tells which rounds were opened since it did last. Where Kafka doesn't take it, or the process dies before, the
// rounds are heard of with their first outcomes. It comes before the order's progress, so that who hears of that finds them.
func (r *run) tellOpened(ctx context.Context) {
	opened := r.opened
	if r.opened = nil; len(opened) == 0 {
		return
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	if err := r.cfg.Opened(limited, r.agent, r.name, opened); err != nil {
		r.log.Warn("tell which rounds of tasks are opened: they are seen once their first attempts are settled", slog.Int("tasks", len(opened)), slog.Any("error", err))
	}
}
