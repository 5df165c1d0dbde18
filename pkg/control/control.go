// Package control follows the control topic: the agents' specs with their desired state.
//
// Control is level-triggered. A service acts only after it has read the topic to the end that it saw at start, so that it
// never converges to a state that was overtaken long ago; from then on it hears of every change. A record that can't
// be read is warned of and skipped: the agent keeps the state that was last understood.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

// lookAgain is how long Follow waits before it looks again for a control topic that doesn't exist yet: the registry,
// which makes it, may start later.
const lookAgain = 500 * time.Millisecond

// tellAgain is how often a wait is told of.
const tellAgain = 30 * time.Second

// A Handler is told of the agents. Calls come from one goroutine, one after the other; specs are the handler's to keep
// and never change.
type Handler interface {
	// Ready gives all agents that the topic held at start, by control key. It is called once, before any Changed.
	Ready(all map[string]*spec.Agent)
	// Changed gives an agent's newer spec, or nil where its record was deleted.
	Changed(key string, a *spec.Agent)
}

// Follow reads the control topic and tells the handler until the context ends; then it returns the context's error.
// Any other error means that the client couldn't be made.
func Follow(ctx context.Context, opts []kgo.Opt, names topics.Names, logger *slog.Logger, h Handler) error {
	f := follower{topic: names.Control(), logger: logger, handler: h, agents: make(map[string]*spec.Agent)}
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, opts...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{f.topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // or a transaction's marker at the end would be waited for in vain
		kgo.DisableFetchSessions(),
		kgo.MetadataMinAge(100*time.Millisecond),
	)...)
	if err != nil {
		return fmt.Errorf("configure the reader of %s: %w", f.topic, err)
	}
	defer cl.Close()
	start, end, err := f.bounds(ctx, kadm.NewClient(cl))
	if err != nil {
		return err
	}
	f.end = end
	f.reached(start)
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fetches.EachError(func(topic string, _ int32, err error) {
			if !errors.Is(err, kerr.UnknownTopicOrPartition) {
				logger.Warn("read control topic", slog.String("topic", topic), slog.Any("error", err))
			}
		})
		fetches.EachRecord(f.record)
	}
}

// follower is the state between records.
type follower struct {
	topic   string
	end     int64 // Ready is called when everything below was read
	ready   bool
	agents  map[string]*spec.Agent // until Ready
	logger  *slog.Logger
	handler Handler
}

// bounds gives the log's first and last committed offset, once the topic exists.
func (f *follower) bounds(ctx context.Context, adm *kadm.Client) (start, end int64, err error) {
	var told time.Time
	for {
		starts, err1 := adm.ListStartOffsets(ctx, f.topic)
		ends, err2 := adm.ListCommittedOffsets(ctx, f.topic)
		first, ok1 := starts.Lookup(f.topic, 0)
		last, ok2 := ends.Lookup(f.topic, 0)
		err := errors.Join(err1, err2, first.Err, last.Err)
		switch {
		case err == nil && ok1 && ok2:
			return first.Offset, last.Offset, nil
		case err == nil:
			err = kerr.UnknownTopicOrPartition
		}
		if ctx.Err() == nil && time.Since(told) > tellAgain {
			told = time.Now()
			f.waiting(err)
		}
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// waiting says what is waited for.
func (f *follower) waiting(err error) {
	if p, ok := (security.Config{}).Diagnose(err); ok {
		f.logger.Warn("wait for the right to read the control topic", slog.String("topic", f.topic), slog.Any("error", err), slog.String("remedy", p.Remedy))
		return
	}
	f.logger.Info("wait for the control topic, which the registry makes", slog.String("topic", f.topic), slog.Any("error", err))
}

func (f *follower) record(r *kgo.Record) {
	if !r.Attrs.IsControl() {
		f.apply(r)
	}
	f.reached(r.Offset + 1)
}

// reached says that everything below an offset was read.
func (f *follower) reached(offset int64) {
	if !f.ready && offset >= f.end {
		f.ready = true
		f.handler.Ready(f.agents)
		f.agents = nil
	}
}

func (f *follower) apply(r *kgo.Record) {
	key := string(r.Key)
	if _, _, ok := spec.ParseKey(key); !ok {
		return // a variable, or of a later version
	}
	a, err := Decode(r)
	if err != nil {
		f.logger.Warn("skip a control record that can't be read", slog.String("key", key), slog.Int64("offset", r.Offset), slog.Any("error", err))
		return
	}
	switch {
	case f.ready:
		f.handler.Changed(key, a)
	case a == nil:
		delete(f.agents, key)
	default:
		f.agents[key] = a
	}
}

// Decode reads an agent's control record. A tombstone gives nil.
func Decode(r *kgo.Record) (*spec.Agent, error) {
	if r.Value == nil {
		return nil, nil
	}
	a := new(spec.Agent)
	if err := json.Unmarshal(r.Value, a); err != nil {
		return nil, fmt.Errorf("decode spec: %w", err)
	}
	switch {
	case a.Key() != string(r.Key):
		return nil, fmt.Errorf("decode spec: it is of the agent %s", a.Ref())
	case a.Phase == "":
		return nil, errors.New("decode spec: it has no phase")
	case a.Partitions < 1:
		return nil, fmt.Errorf("decode spec: %d is no number of partitions", a.Partitions)
	}
	return a, nil
}
