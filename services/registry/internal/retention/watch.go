package retention

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

const (
	interval = 10 * time.Second
	limit    = 30 * time.Second // of one look
	// maxRounds bounds how often one look reads: a hundred agents that follow one busy topic stand at a hundred offsets of
	// it, and at others the next time.
	maxRounds = 16
)

// Watch looks again and again. All fields are required. Its methods are safe for concurrent use.
type Watch struct {
	Client *kgo.Client // for requests
	Opts   []kgo.Opt   // of readers
	Names  topics.Names
	// Agents gives the agents that aren't deleted.
	Agents func(ctx context.Context) ([]*spec.Agent, error)
	// Leads reports whether this registry raises alerts, and Raise does it.
	Leads  func() bool
	Raise  func(ctx context.Context, a status.Alert) error
	Logger *slog.Logger

	mu    sync.Mutex
	known map[string]Outlook // by topic/name

	// Only the goroutine of Run touches these.
	dated  map[place]time.Time // timestamps of the oldest events, by where they were looked for
	missed map[place]bool      // what the last look had no round for
	raised map[string]raised   // the alerts that stand
}

// place is where the oldest event is looked for: at an offset or behind it.
type place struct {
	topic     string
	partition int32
	from      int64
}

// raised is an alert as it was last told.
type raised struct {
	warning string
	since   float64
}

// Of is an agent's outlook as of the last look; the zero value where nothing waits, or nobody has looked yet.
func (w *Watch) Of(ref string) Outlook {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[ref]
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.Logger.Debug("look at what retention will remove", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// waits is an agent with the partitions on which events wait for it.
type waits struct {
	agent *spec.Agent
	on    []Partition
}

func (w *Watch) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	agents, err := w.Agents(ctx)
	if err != nil {
		return err
	}
	waiting, err := w.waiting(ctx, agents)
	if err != nil {
		return err
	}
	policies := w.policies(ctx, waiting)
	w.sizes(ctx, waiting, policies)
	now := time.Now()
	known := make(map[string]Outlook, len(waiting))
	for _, a := range waiting {
		ref := a.agent.Ref()
		known[ref] = Judge(a.on, policies[a.agent.Topic], now)
		if before, ok := w.known[ref]; ok && w.hasMissed(a) {
			known[ref] = before // or an alert would come and go with the rounds
		}
	}
	w.mu.Lock()
	w.known = known
	w.mu.Unlock()
	return w.alert(ctx, agents, known)
}

// waiting finds the agents that have events waiting, and since when.
func (w *Watch) waiting(ctx context.Context, agents []*spec.Agent) ([]waits, error) {
	var groups, names []string
	for _, a := range agents {
		groups, names = append(groups, w.Names.Group(a.Topic, a.Name)), append(names, a.Topic)
	}
	fetched := kadm.NewClient(w.Client).FetchManyOffsets(ctx, groups...)
	bounds, err := peek.TopicBounds(ctx, w.Client, names...)
	if err != nil {
		return nil, err
	}
	var out []waits
	for i, a := range agents {
		r := fetched[groups[i]]
		if r.Err != nil && !errors.Is(r.Err, kerr.GroupIDNotFound) {
			continue
		}
		var on []Partition
		for p, log := range bounds[a.Topic] {
			// Where a group has no position nobody knows where it begins.
			if o, ok := r.Fetched.Lookup(a.Topic, p); ok && o.At >= 0 && o.At < log.End {
				on = append(on, Partition{Number: p, Start: log.Start, End: log.End, Next: o.At})
			}
		}
		if len(on) > 0 {
			out = append(out, waits{a, on})
		}
	}
	w.date(ctx, out)
	return out, nil
}

// date finds the timestamps of the oldest events that wait. What was found before isn't read again. One reader has one
// place on a partition, so agents of a topic that stand at different offsets are looked at one after the other.
func (w *Watch) date(ctx context.Context, waiting []waits) {
	dated := map[place]time.Time{}
	fresh := map[place]int64{}
	for _, a := range waiting {
		for _, p := range a.on {
			at := placeOf(a.agent, p)
			if old, ok := w.dated[at]; ok {
				dated[at] = old
			} else {
				fresh[at] = p.End
			}
		}
	}
	var rounds []peek.Ranges
	rounds, w.missed = plan(fresh, w.missed)
	for _, round := range rounds {
		read, err := peek.Heads(ctx, w.Opts, round)
		if err != nil && ctx.Err() == nil {
			w.Logger.Debug("read the oldest events that wait", slog.Any("error", err))
		}
		for topic, partitions := range read {
			for p, head := range partitions {
				dated[place{topic, p, round[topic][p].Start}] = head.At
			}
		}
	}
	w.dated = dated
	for _, a := range waiting {
		for i := range a.on {
			a.on[i].Oldest = dated[placeOf(a.agent, a.on[i])]
		}
	}
}

// hasMissed reports whether the last look had no round for some of what waits for an agent.
func (w *Watch) hasMissed(a waits) bool {
	return slices.ContainsFunc(a.on, func(p Partition) bool { return w.missed[placeOf(a.agent, p)] })
}

func placeOf(a *spec.Agent, p Partition) place { return place{a.Topic, p.Number, max(p.Next, p.Start)} }

// plan shares places, each with the end of its log, among rounds; missed are those that there is no round for. What was missed
// before comes first: who stands where it stood is paused, or in trouble, and is what the warning is for.
func plan(fresh map[place]int64, before map[place]bool) (rounds []peek.Ranges, missed map[place]bool) {
	missed = map[place]bool{}
	for _, stood := range []bool{true, false} {
		for at, end := range fresh {
			if before[at] != stood {
				continue
			}
			var ok bool
			if rounds, ok = want(rounds, at, end); !ok {
				missed[at] = true
			}
		}
	}
	return rounds, missed
}

// want puts a place into the first round that has no other on its partition; ok is false where there is none.
func want(rounds []peek.Ranges, at place, end int64) (_ []peek.Ranges, ok bool) {
	for _, round := range rounds {
		other, taken := round[at.topic][at.partition]
		if taken && other.Start != at.from {
			continue
		}
		if round[at.topic] == nil {
			round[at.topic] = map[int32]peek.Bounds{}
		}
		round[at.topic][at.partition] = peek.Bounds{Start: at.from, End: end}
		return rounds, true
	}
	if len(rounds) == maxRounds {
		return rounds, false
	}
	return append(rounds, peek.Ranges{at.topic: {at.partition: {Start: at.from, End: end}}}), true
}

// policies reads the retention of the topics. Where it may not be read there is none.
func (w *Watch) policies(ctx context.Context, waiting []waits) map[string]Policy {
	out := map[string]Policy{}
	var names []string
	for _, a := range waiting {
		if _, ok := out[a.agent.Topic]; !ok {
			out[a.agent.Topic] = Policy{-1, -1}
			names = append(names, a.agent.Topic)
		}
	}
	if len(names) == 0 {
		return out
	}
	configs, err := kadm.NewClient(w.Client).DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return out
	}
	for _, c := range configs {
		if c.Err == nil {
			out[c.Name] = policyOf(c.Configs)
		}
	}
	return out
}

func policyOf(configs []kadm.Config) Policy {
	policy, removes := Policy{-1, -1}, true
	for _, c := range configs {
		n, err := strconv.ParseInt(c.MaybeValue(), 10, 64)
		switch {
		case c.Key == "cleanup.policy":
			removes = strings.Contains(c.MaybeValue(), "delete")
		case err != nil || n < 0:
		case c.Key == "retention.ms":
			policy.Age = time.Duration(min(n, int64(1<<62/time.Millisecond))) * time.Millisecond
		case c.Key == "retention.bytes":
			policy.Bytes = n
		}
	}
	if !removes {
		return Policy{-1, -1}
	}
	return policy
}

// sizes reads how large the logs are whose topics have a limit. Where that isn't allowed, nothing is said of bytes.
func (w *Watch) sizes(ctx context.Context, waiting []waits, policies map[string]Policy) {
	var set kadm.TopicsSet
	for _, a := range waiting {
		if policies[a.agent.Topic].Bytes > 0 {
			for _, p := range a.on {
				set.Add(a.agent.Topic, p.Number)
			}
		}
	}
	if len(set) == 0 {
		return
	}
	all, err := kadm.NewClient(w.Client).DescribeAllLogDirs(ctx, set)
	if err != nil {
		return
	}
	size := map[string]map[int32]int64{}
	all.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if size[p.Topic] == nil {
				size[p.Topic] = map[int32]int64{}
			}
			size[p.Topic][p.Partition] = max(size[p.Topic][p.Partition], p.Size) // replicas are equal, or behind
		})
	})
	for i := range waiting {
		for j := range waiting[i].on {
			waiting[i].on[j].Size = size[waiting[i].agent.Topic][waiting[i].on[j].Number]
		}
	}
}

// alert raises and takes back. What another registry raised before it stopped leading is raised again, or taken back, since
// the first look after that tells of all agents.
func (w *Watch) alert(ctx context.Context, agents []*spec.Agent, known map[string]Outlook) error {
	if !w.Leads() {
		w.raised = nil
		return nil
	}
	first := w.raised == nil
	if first {
		w.raised = map[string]raised{}
	}
	for _, a := range agents {
		o := known[a.Ref()]
		before, stands := w.raised[a.Ref()]
		if !first && o.Warning == before.warning {
			continue
		}
		now := status.Seconds(time.Now())
		if !stands {
			before.since = now
		}
		alert := status.Alert{Topic: a.Topic, AgentName: a.Name, Kind: status.KindRetentionNear, Subject: a.Ref(), Service: "registry", Severity: "warning", Since: before.since, Timestamp: now, Resolved: o.Warning == "",
			Message: o.Warning + ": let the agent catch up (resume it where it is paused), or raise the retention of " + a.Topic}
		if o.Critical {
			alert.Severity = "critical"
		}
		if err := w.Raise(ctx, alert); err != nil {
			return err
		}
		if o.Warning == "" {
			delete(w.raised, a.Ref())
			continue
		}
		if !stands {
			w.Logger.Warn("alert: "+alert.Message, slog.String("kind", status.KindRetentionNear), slog.String("subject", a.Ref()))
		}
		w.raised[a.Ref()] = raised{o.Warning, before.since}
	}
	return nil
}
