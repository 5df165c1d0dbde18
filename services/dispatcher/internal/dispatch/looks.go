package dispatch

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/status"
)

// The looks at the cluster that all agents share, and the heartbeats that tell what they have found.

const (
	// heartbeat is how often the fleet looks at user topics and reports.
	heartbeat = 2 * time.Second
	// wholeEvery is after how many heartbeats one tells all counts of tasks: one before may have been lost.
	wholeEvery = 30
)

func (f *Fleet) reports() []status.AgentReport {
	var rs []status.AgentReport
	for _, k := range f.all() {
		rs = append(rs, k.Report())
	}
	slices.SortFunc(rs, func(a, b status.AgentReport) int {
		return strings.Compare(a.Topic+"/"+a.AgentName, b.Topic+"/"+b.AgentName)
	})
	return rs
}

// counted is reports with the counts of tasks that have changed, or all of them.
func (f *Fleet) counted(all bool) []status.AgentReport {
	rs := f.reports()
	for i := range rs {
		if k := f.keeper(rs[i].Topic + "/" + rs[i].AgentName); k != nil {
			rs[i].Dispatched = k.Dispatched(all)
		}
	}
	return rs
}

// looks keeps the rooms up to date: often where something moves, more often where routing waits for a fast agent, at
// every heartbeat elsewhere.
func (f *Fleet) looks(ctx context.Context) {
	tick := time.NewTicker(urgentInterval)
	defer tick.Stop()
	const often, rare = int(lookInterval / urgentInterval), int(heartbeat / urgentInterval)
	var troubles failures
	for n := 0; ; n++ {
		var queues []queue
		for _, k := range f.all() {
			a, room := k.Spec(), k.Room()
			if a != nil && (n%rare == 0 || n%often == 0 && room.Restless() || room.Urgent()) {
				queues = append(queues, queue{f.env.Names.Tasks(a.Topic, a.Name), f.env.Names.WorkGroup(a.Topic, a.Name), room})
			}
		}
		limited, cancel := context.WithTimeout(ctx, heartbeat)
		err := look(limited, f.env.admin(), queues)
		if _, complain := troubles.next(err, time.Now()); complain && ctx.Err() == nil {
			f.env.Logger.Warn("look at task queues: it is tried again", slog.Any("error", err))
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// heartbeats looks at the user topics and reports.
func (f *Fleet) heartbeats(ctx context.Context) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for n := 0; ; n++ {
		limited, cancel := context.WithTimeout(ctx, 2*heartbeat)
		if err := f.lookAtTopics(limited); err != nil && ctx.Err() == nil {
			f.env.Logger.Warn("look at user topics", slog.Any("error", err))
		}
		cancel()
		reports := f.reports()
		for _, r := range reports {
			f.env.Metrics.figures(r.Topic, r.AgentName, r.Lag, r.Unsettled)
		}
		select {
		case <-f.ready: // before it knows the agents, a heartbeat would say that there are none
			f.env.Reporter.Node(f.counted(n%wholeEvery == 0), false)
		default:
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lookAtTopics finds topics that are gone or were made again, and the lag.
func (f *Fleet) lookAtTopics(ctx context.Context) error {
	keepers := f.all()
	var names []string
	for _, k := range keepers {
		if a := k.Spec(); a != nil {
			names = append(names, a.Topic)
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return nil
	}
	adm := f.env.admin()
	found, err := kafka.ListTopics(ctx, f.env.Client, names...)
	if err != nil {
		return err
	}
	exist := names[:0]
	for _, name := range names {
		if t, ok := found[name]; ok && t.Err == nil { // of one that may not be described nothing is known
			exist = append(exist, name)
		}
	}
	ends, err := adm.ListCommittedOffsets(ctx, exist...)
	if err != nil && len(ends) == 0 {
		return err
	}
	starts, err := adm.ListStartOffsets(ctx, exist...)
	if err != nil && len(starts) == 0 {
		return err
	}
	idle := f.upkeep.idlePositions(ctx, keepers)
	for _, k := range keepers {
		a := k.Spec()
		if a == nil {
			continue
		}
		t := found[a.Topic]
		if t.Err == nil || isUnknownTopic(t.Err) {
			k.TopicSeen(t.ID, len(t.Partitions))
		}
		at := k.positions()
		if at == nil {
			at = idle[a.Ref()]
		}
		k.setLag(lag(a.Topic, at, starts, ends))
	}
	return nil
}
