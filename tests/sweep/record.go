package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/pkg/task"
)

// A recorder enters what it reads in the account and counts. It reads like a user: read_committed, from the topics.
type recorder struct {
	input, tasks, outcomes string

	mu         sync.Mutex
	account    *Account
	faults     []error
	published  int
	dispatched int              // tasks, not their retries
	finals     int              // tasks
	place      map[string]int32 // task → partition of the task topic
	waiting    []*watch
}

// A watch is somebody who waits for the first record that satisfies him.
type watch struct {
	outcome func(o harness.Outcome, partition int32) bool
	task    func(origin task.Origin) bool
	seen    chan time.Time
}

// watch registers before the thing is done whose effect is waited for.
func (r *recorder) watch(w *watch) <-chan time.Time {
	w.seen = make(chan time.Time, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, w)
	return w.seen
}

func (r *recorder) run(ctx context.Context, brokers []string) error {
	return harness.Follow(ctx, brokers, []string{r.input, r.tasks, r.outcomes}, r.record)
}

func (r *recorder) record(rec *kgo.Record) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	switch rec.Topic {
	case r.input:
		err = r.event(rec)
	case r.tasks:
		err = r.task(rec, now)
	case r.outcomes:
		err = r.outcome(rec, now)
	}
	if err != nil {
		r.faults = append(r.faults, err)
	}
}

func (r *recorder) event(rec *kgo.Record) error {
	var c Content
	if err := json.Unmarshal(rec.Value, &c); err != nil {
		return fmt.Errorf("read own event: %w", err)
	}
	id := task.Origin{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}.ID()
	r.account.Published(id, string(rec.Key), c)
	r.published++
	return nil
}

func (r *recorder) task(rec *kgo.Record, now time.Time) error {
	var origin task.Origin
	attempt := 1
	for _, h := range rec.Headers {
		var err error
		switch h.Key {
		case task.HeaderOrigin:
			origin, err = task.ParseOrigin(string(h.Value))
		case task.HeaderAttempt:
			attempt, err = strconv.Atoi(string(h.Value))
		}
		if err != nil {
			return fmt.Errorf("read task at %d/%d: %w", rec.Partition, rec.Offset, err)
		}
	}
	id := origin.ID()
	if attempt == 1 {
		if _, twice := r.place[id]; twice {
			return fmt.Errorf("%s was dispatched twice", id)
		}
		r.dispatched++
	}
	r.place[id] = rec.Partition
	r.tell(now, func(w *watch) bool { return w.task != nil && w.task(origin) })
	return nil
}

func (r *recorder) outcome(rec *kgo.Record, now time.Time) error {
	o, err := harness.ParseOutcome(rec)
	if err != nil {
		return err
	}
	o.Seen = now
	r.account.Outcome(o)
	if o.Final {
		r.finals++
	}
	partition, known := r.place[o.Origin]
	if !known {
		partition = -1
	}
	r.tell(now, func(w *watch) bool { return w.outcome != nil && w.outcome(o, partition) })
	return nil
}

// ended says by which attempts a task was settled, once it is finished; nil before.
func (r *recorder) ended(id string) (attempts []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.account.tasks[id]
	if e == nil || e.finals == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(e.attempts))
}

// tell lets go of those whose record this is.
func (r *recorder) tell(now time.Time, is func(*watch) bool) {
	kept := r.waiting[:0]
	for _, w := range r.waiting {
		if is(w) {
			w.seen <- now
			continue
		}
		kept = append(kept, w)
	}
	r.waiting = kept
}

// counts is a look at the counters.
type counts struct{ published, dispatched, finals int }

func (c counts) unsettled() int { return c.dispatched - c.finals }

func (r *recorder) counts() counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return counts{r.published, r.dispatched, r.finals}
}
