package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// lookAgain is how long a Follower waits before it looks again for a topic that doesn't exist yet, or may not be read.
	lookAgain = time.Second
	// tellAgain is how often such a wait is told of.
	tellAgain = 5 * time.Minute
	// forgetEvery is how often what has expired is dropped.
	forgetEvery = time.Minute
	// slack is how far the clocks of an installation may be apart, for where a Follower begins to read.
	slack = 10 * time.Minute
)

// A Handler is given the commands of one verb. Calls come from one goroutine, in the topic's order, and must not block.
type Handler func(Command)

// Config configures a Follower. All fields are required.
type Config struct {
	// Opts reach the brokers.
	Opts  []kgo.Opt
	Names topics.Names
	// Handlers are what this process carries out. Other verbs are somebody else's.
	Handlers map[Verb]Handler
	Logger   *slog.Logger
}

// Follower reads the commands topic without a group. Its methods are safe for concurrent use.
type Follower struct {
	cfg   Config
	topic string

	// Only the goroutine of Run touches these.
	seen   map[string]time.Time // ids that were given, until they expire
	forgot time.Time            // when what has expired was dropped last
	held   []Command            // of the time before the start, until all of that is read

	mu       sync.Mutex
	moved    *sync.Cond
	began    bool                 // what stood on the topic at the start is read
	next     map[int32]int64      // below is read
	finished map[string]time.Time // until the note of it expires
}

// NewFollower makes a Follower; Run starts it.
func NewFollower(cfg Config) *Follower {
	f := &Follower{cfg: cfg, topic: cfg.Names.Commands(), seen: map[string]time.Time{}, next: map[int32]int64{}, finished: map[string]time.Time{}}
	f.moved = sync.NewCond(&f.mu)
	return f
}

// Run gives commands to the handlers until the context ends, and returns the context's error; any other one means that the
// client couldn't be made. It begins with those that may not have expired yet: what of them is expired or finished by now
// isn't given. Until the topic is there and may be read it waits, and says so. It may be called once.
func (f *Follower) Run(ctx context.Context) error {
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, f.cfg.Opts...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // or a transaction's marker at the end would be waited for in vain
		kgo.DisableFetchSessions(),
		kgo.MetadataMinAge(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)...)
	if err != nil {
		return fmt.Errorf("configure the reader of %s: %w", f.topic, err)
	}
	defer cl.Close()
	from, ends, err := f.bounds(ctx, kadm.NewClient(cl))
	if err != nil {
		return err
	}
	at := map[int32]kgo.Offset{}
	for p, offset := range from {
		at[p] = kgo.NewOffset().At(offset)
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{f.topic: at})
	f.read(from)
	f.begin(ends)
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fetches.EachError(func(topic string, _ int32, err error) {
			if !errors.Is(err, kerr.UnknownTopicOrPartition) {
				f.cfg.Logger.Warn("read commands topic", slog.String("topic", topic), slog.Any("error", err))
			}
		})
		next := map[int32]int64{}
		fetches.EachRecord(func(r *kgo.Record) {
			next[r.Partition] = r.Offset + 1
			if !r.Attrs.IsControl() {
				f.record(r)
			}
		})
		f.read(next)
		f.begin(ends)
	}
}

// bounds says where to begin, and where the topic ended then, once it exists. The ends are asked for first: what is
// written in between is above them.
func (f *Follower) bounds(ctx context.Context, adm *kadm.Client) (from, ends map[int32]int64, err error) {
	var told time.Time
	for {
		last, err := f.ends(ctx, adm)
		var recent kadm.ListedOffsets
		if err == nil {
			recent, err = adm.ListOffsetsAfterMilli(ctx, time.Now().Add(-MaxLife-slack).UnixMilli(), f.topic)
		}
		if err == nil {
			err = recent.Error()
		}
		if err == nil {
			from = map[int32]int64{}
			for p, end := range last {
				from[p] = end
				if o, ok := recent.Lookup(f.topic, p); ok && o.Offset >= 0 {
					from[p] = min(o.Offset, end)
				}
			}
			return from, last, nil
		}
		if ctx.Err() == nil && time.Since(told) > tellAgain {
			told = time.Now()
			f.waiting(err)
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// ends gives the end of each partition. It lies behind what is in doubt yet: a transaction that is committed below it may
// stand behind one that is still open, and only who has read past both knows of it.
func (f *Follower) ends(ctx context.Context, adm *kadm.Client) (map[int32]int64, error) {
	listed, err := adm.ListEndOffsets(ctx, f.topic)
	if err == nil {
		err = listed.Error()
	}
	if err == nil && len(listed[f.topic]) == 0 {
		err = kerr.UnknownTopicOrPartition
	}
	if err != nil {
		return nil, fmt.Errorf("find the end of %s: %w", f.topic, err)
	}
	ends := make(map[int32]int64, len(listed[f.topic]))
	for p, o := range listed[f.topic] {
		ends[p] = o.Offset
	}
	return ends, nil
}

func (f *Follower) waiting(err error) {
	if p, ok := (security.Config{}).Diagnose(err); ok {
		f.cfg.Logger.Warn("wait for the right to read the commands topic: until then nothing can be asked of what runs here",
			slog.String("topic", f.topic), slog.Any("error", err), slog.String("remedy", p.Remedy))
		return
	}
	f.cfg.Logger.Info("wait for the commands topic, which the registry makes", slog.String("topic", f.topic), slog.Any("error", err))
}

// record takes one record.
func (f *Follower) record(r *kgo.Record) {
	c, err := Decode(r)
	if err != nil {
		f.cfg.Logger.Warn("skip a command that can't be read", slog.String("topic", r.Topic), slog.String("key", string(r.Key)),
			slog.Int("partition", int(r.Partition)), slog.Int64("offset", r.Offset), slog.Any("error", err))
		return
	}
	switch {
	case c.Verb == Done:
		f.mu.Lock()
		f.finished[c.ID] = c.Expires
		f.mu.Unlock()
	case !f.begun():
		f.held = append(f.held, c)
	default:
		f.give(c)
	}
}

// read notes what is read.
func (f *Follower) read(next map[int32]int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.Copy(f.next, next)
	f.moved.Broadcast()
}

func (f *Follower) begun() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.began
}

// begin gives what is from before the start, once all of that is read.
func (f *Follower) begin(ends map[int32]int64) {
	if f.begun() || !f.has(ends) {
		return
	}
	f.mu.Lock()
	f.began = true
	f.mu.Unlock()
	for _, c := range f.held {
		f.give(c)
	}
	f.held = nil
}

// has reports whether everything below the offsets is read.
func (f *Follower) has(ends map[int32]int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reached(ends)
}

func (f *Follower) reached(ends map[int32]int64) bool {
	for p, end := range ends {
		if f.next[p] < end {
			return false
		}
	}
	return true
}

// give calls the handler, once for each command and renewal.
func (f *Follower) give(c Command) {
	now := time.Now()
	until, twice := f.seen[c.ID]
	renewed := c.Expires.After(until) && until.Sub(now) < Renewal
	if twice && !renewed || now.After(c.Expires) || f.Finished(c.ID) {
		return
	}
	f.forget(now)
	f.seen[c.ID] = c.Expires
	if h := f.cfg.Handlers[c.Verb]; h != nil {
		h(c)
	}
}

// forget drops what has expired, now and then: a command costs the same, however many live.
func (f *Follower) forget(now time.Time) {
	if now.Sub(f.forgot) < forgetEvery {
		return
	}
	f.forgot = now
	over := func(_ string, until time.Time) bool { return now.After(until) }
	maps.DeleteFunc(f.seen, over)
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.finished, over)
}

// Finished reports whether a command is known to be carried out.
func (f *Follower) Finished(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.finished[id]
	return ok
}

// CatchUp waits until everything is read that stands on the topic now. After it Finished knows all that was committed
// before it was called.
func (f *Follower) CatchUp(ctx context.Context, adm *kadm.Client) error {
	ends, err := f.ends(ctx, adm)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.moved.Broadcast()
	})()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.began || !f.reached(ends) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.moved.Wait()
	}
	return nil
}
