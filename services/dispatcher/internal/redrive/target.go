package redrive

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// target is who gets dead letters once more: an agent gets tasks, endpoints get webhooks. It has all that differs between
// the two.
type target interface {
	// topic is where what is redriven is written.
	topic() string
	// takes says whether it may be now: waiting says why not yet, refusal why never.
	takes() (waiting, refusal string)
	// read reads what tells a letter from others, and its failure from others.
	read(l *letter)
	// pace is where the redriving of a failure begins.
	pace() *Pace
	// takesIt reports whether a letter is run, or sent, if it is redriven now.
	takesIt(l *letter) bool
	// place takes a place for a letter, which is then its record's. Once one had to wait, those behind it do too.
	place(l *letter, full map[int32]bool) bool
	// record is what a letter becomes by an order; nil where its agent is gone. outcome is to be written in place of a task that
	// ends unrun.
	record(l *letter, order string, now time.Time) (r, outcome *kgo.Record, err error)
	// mend makes the topic take what it has refused.
	mend(ctx context.Context) error
	// follow hands on how letters end that are redriven from now on, from another goroutine, until stop is called. With what
	// that gives as since, the next follow goes on from there.
	follow(ctx context.Context, since map[int32]int64, each func(ending)) (stop func() map[int32]int64, err error)
	// moved counts what was redriven.
	moved(n int)
	// reason says why no more of a failure is redriven; "" where it isn't hopeless.
	reason(p *Pace, cause, example string) string
	// foreign says what a letter is that it can't take.
	foreign() string
}

// ending is how something ended that may have been redriven.
type ending struct {
	id string
	// of says how it ended for a letter of this cause and round; ok is false for what says nothing of it.
	of func(cause string, round int) (how end, ok bool)
}

func targetOf(cfg *Config, ref string) target {
	if topic, name := cut(ref); !(command.Command{Topic: topic, Agent: name}).OfWebhooks() {
		return &agent{cfg: cfg, ref: ref, on: topic, name: name}
	}
	return &endpoints{cfg: cfg}
}

// agent is the target of tasks.
type agent struct {
	cfg           *Config
	ref, on, name string

	gate    *route.Gate // of routing; only the desk's own goroutine looks
	routing *spec.Routing
}

func (a *agent) topic() string { return a.cfg.Names.Tasks(a.on, a.name) }

func (a *agent) takes() (waiting, refusal string) {
	switch s := a.cfg.Agent(a.ref); {
	case s == nil || s.Phase == spec.Terminated:
		return "", "the agent is deleted: register it again, its dead letters are still there"
	case s.Phase != spec.Active:
		return fmt.Sprintf("the agent is %s: its dead letters are redriven once it is active", s.Phase), ""
	}
	return "", ""
}

// read reads a task. A record that Reeve didn't write has no origin, and can be purged only.
func (a *agent) read(l *letter) {
	l.cause, l.round = causeOf(l.record), route.Redrives(l.record)+1
	if o, err := task.ParseOrigin(route.Header(l.record, task.HeaderOrigin)); err == nil {
		l.id = o.ID()
	}
}

func (a *agent) pace() *Pace { return &Pace{} }

func (a *agent) place(l *letter, full map[int32]bool) bool {
	s := a.cfg.Agent(a.ref)
	if s == nil {
		return false
	}
	want := int32(-1)
	if l.record.Key != nil {
		want = route.Partition(l.record.Key, s.Partitions)
	}
	if full[want] {
		return false
	}
	p, ok := a.cfg.Place(a.ref, want)
	full[want] = !ok
	l.place = p
	return ok
}

func (a *agent) record(l *letter, order string, now time.Time) (r, outcome *kgo.Record, err error) {
	s := a.cfg.Agent(a.ref)
	if s == nil {
		return nil, nil, nil
	}
	gate, err := a.gateOf(s)
	if err != nil {
		return nil, nil, err
	}
	again, becomes := route.Redrive(a.cfg.Names, s, gate, l.record, l.place, order, a.cfg.Node, now)
	if becomes != again {
		return again, becomes, nil
	}
	return again, nil, nil
}

// takesIt judges a letter once as long as the agent's gate is the same.
func (a *agent) takesIt(l *letter) bool {
	s := a.cfg.Agent(a.ref)
	if s == nil {
		return true // the order ends for that
	}
	gate, err := a.gateOf(s)
	if err != nil {
		return true // whoever redrives it says so
	}
	if !l.judged || l.gate != gate {
		l.gate, l.judged, l.taken = gate, true, route.Unfit(s, gate, l.record).Class == ""
	}
	return l.taken
}

// gateOf is the gate of the agent as it is now.
func (a *agent) gateOf(s *spec.Agent) (*route.Gate, error) {
	if a.routing == nil || !reflect.DeepEqual(*a.routing, s.Routing) {
		gate, err := a.cfg.Gate(s)
		if err != nil {
			return nil, err
		}
		a.gate, a.routing = gate, &s.Routing
	}
	return a.gate, nil
}

func (a *agent) mend(ctx context.Context) error { return a.cfg.Mend(ctx, a.ref) }

// follow reads the outcomes topic. An agent's outcomes stand on one partition.
func (a *agent) follow(ctx context.Context, since map[int32]int64, each func(ending)) (stop func() map[int32]int64, err error) {
	key := hop.PartitionOf([]byte(a.ref))
	among := func(partitions int) []int32 { return []int32{hop.Among(key, partitions)} }
	return follow(ctx, a.cfg.Opts, a.cfg.Names.Outcomes(), since, among, func(r *kgo.Record) {
		if route.Redrives(r) == 0 || route.Header(r, task.HeaderAgent) != a.ref {
			return
		}
		if o, err := task.ParseOrigin(route.Header(r, task.HeaderOrigin)); err == nil {
			each(ending{o.ID(), func(cause string, round int) (end, bool) {
				if route.Redrives(r) != round {
					return 0, false
				}
				return endOf(r, cause)
			}})
		}
	})
}

func (a *agent) moved(int) {}

func (a *agent) reason(p *Pace, _, example string) string { return p.Reason(example) }

func (a *agent) foreign() string { return "it is no task of this agent" }

// endpoints are the target of webhooks. One failure is that of one endpoint, whatever it answers.
type endpoints struct{ cfg *Config }

func (e *endpoints) topic() string { return e.cfg.Names.Webhooks() }

func (e *endpoints) takes() (waiting, refusal string) { return "", "" }

// read reads a webhook. Its round are the tries that it had before.
func (e *endpoints) read(l *letter) {
	l.id, l.round = route.WebhookID(l.record), route.WebhookTries(l.record)
	_, l.cause, _ = route.WebhookURL(l.record)
}

// pace begins singly: to an endpoint that has failed often, webhooks are sent one at a time, and others would wait for long.
func (e *endpoints) pace() *Pace { return &Pace{Singly: true} }

func (e *endpoints) takesIt(*letter) bool { return true }

func (e *endpoints) place(l *letter, _ map[int32]bool) bool {
	l.place = hop.AnyPartition
	return true
}

func (e *endpoints) record(l *letter, order string, now time.Time) (r, outcome *kgo.Record, err error) {
	return route.RedriveWebhook(e.cfg.Names, l.record, order, now), nil, nil
}

func (e *endpoints) mend(context.Context) error { return nil }

// follow reads the status topic, where whoever sends webhooks tells of each try.
func (e *endpoints) follow(ctx context.Context, since map[int32]int64, each func(ending)) (stop func() map[int32]int64, err error) {
	return follow(ctx, e.cfg.Opts, e.cfg.Names.Status(), since, all, func(r *kgo.Record) {
		var told status.Webhook
		if json.Unmarshal(r.Value, &told) == nil && told.Event == status.EventWebhook {
			each(ending{told.ID, func(_ string, round int) (end, bool) { return endOfTry(told, round) }})
		}
	})
}

func (e *endpoints) moved(n int) { e.cfg.WebhooksRedriven(n) }

func (e *endpoints) reason(p *Pace, endpoint, example string) string {
	if !p.Hopeless() {
		return ""
	}
	return fmt.Sprintf("%d of %d redriven webhooks to %s failed again in their first try (%s); they are tried on, the others stay", p.Same, p.Moved, endpoint, example)
}

func (e *endpoints) foreign() string { return "it is no webhook" }
