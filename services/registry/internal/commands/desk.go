// Package commands is where the registry asks something of the other services, and hears what became of it.
package commands

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
)

// writeLimit is how long a command is tried to be written.
const writeLimit = 10 * time.Second

// Desk issues commands. Its methods are safe for concurrent use.
type Desk struct {
	client *kgo.Client
	names  topics.Names
	now    func() time.Time

	mu      sync.Mutex
	waiting map[string]chan status.CommandResult // by id
}

// New makes a desk that writes with a client which somebody else closes.
func New(cl *kgo.Client, names topics.Names) *Desk {
	return &Desk{client: cl, names: names, now: time.Now, waiting: map[string]chan status.CommandResult{}}
}

// Issue writes a command that counts for a time, at most command.MaxLife; it gives it an id, unless it has one, and its
// times. When it returns without an error Kafka has the command. With an error nobody knows: to issue it again is safe.
//
// Then it waits for what becomes of it, for so long at most. An answer that it is done or refused ends the wait; nil says
// that nobody has answered, and accepted that it is being carried out.
func (d *Desk) Issue(ctx context.Context, c command.Command, life, wait time.Duration) (command.Command, *status.CommandResult, error) {
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	c.At = d.now().UTC().Truncate(time.Millisecond)
	c.Expires = c.At.Add(life)
	record, err := c.Record(d.names)
	if err != nil {
		return c, nil, err
	}
	heard := d.expect(c.ID)
	defer d.forget(c.ID)
	writing, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if err := d.client.ProduceSync(writing, record).FirstErr(); err != nil {
		return c, nil, fmt.Errorf("write the command to %s: %w", record.Topic, err)
	}
	return c, await(ctx, heard, wait), nil
}

// await gives the last word that came in time.
func await(ctx context.Context, heard <-chan status.CommandResult, wait time.Duration) *status.CommandResult {
	limit := time.NewTimer(wait)
	defer limit.Stop()
	var last *status.CommandResult
	for {
		select {
		case r := <-heard:
			last = &r
			if r.State != status.CommandAccepted {
				return last
			}
		case <-limit.C:
			return last
		case <-ctx.Done():
			return last
		}
	}
}

// heardAtOnce is how many results of one command are kept for who waits: the first of a kind that ends the wait counts.
const heardAtOnce = 16

func (d *Desk) expect(id string) <-chan status.CommandResult {
	c := make(chan status.CommandResult, heardAtOnce)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting[id] = c
	return c
}

func (d *Desk) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, id)
}

// Heard passes a result on to who waits for it.
func (d *Desk) Heard(r status.CommandResult) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case d.waiting[r.ID] <- r:
	default: // nobody waits here, or has heard enough
	}
}
