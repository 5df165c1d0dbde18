package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Content is what an event of the sweep asks of the agent.
type Content struct {
	Seq    int  `json:"seq"`
	WorkUS int  `json:"work_us"`
	Fails  int  `json:"fails,omitempty"`
	Poison bool `json:"poison,omitempty"`
}

const keyCount = 5_000

// load is what the services have to do.
type load struct {
	// backlog is how many events the publisher keeps unfinished: enough that every blow finds many tasks dispatched and
	// unsettled, few enough that the end doesn't take minutes. enough is how many of them.
	backlog, enough int
	// work is how long the agent works on a task at most, and instances how many processes of it there are, each with 16
	// tasks at a time.
	work      time.Duration
	instances int
}

// heavy leaves no time between two tasks.
func heavy() load {
	return load{backlog: 3_000, enough: 1_000, work: 20 * time.Millisecond, instances: 4}
}

// publisher feeds the system as fast as it finishes, until its context ends.
type publisher struct {
	load
	topic string
	rnd   *rand.Rand
	rec   *recorder
	sent  int
}

func (p *publisher) run(ctx context.Context, brokers []string) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(p.topic),
		kgo.AllowAutoTopicCreation(), // in reeve dev the agent that names the topic may be the first to
		kgo.MetadataMinAge(100*time.Millisecond),
		kgo.DisableIdempotentWrite(), // a broker that is killed forgets producers; what is sent twice is two events
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		seen := p.rec.counts()
		missing := p.backlog - (max(p.sent, seen.published) - seen.finals)
		if missing <= 0 {
			continue
		}
		batch := make([]*kgo.Record, missing)
		for i := range batch {
			if batch[i], err = p.next(); err != nil {
				return err
			}
		}
		// The context is not the caller's: what was begun is finished, so that nothing is on the topic that wasn't waited for.
		if err := cl.ProduceSync(context.Background(), batch...).FirstErr(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
}

// next makes an event: one in a hundred fails once, one in a thousand for good.
func (p *publisher) next() (*kgo.Record, error) {
	c := Content{Seq: p.sent, WorkUS: p.rnd.IntN(int(p.work.Microseconds()))}
	switch n := p.rnd.IntN(1000); {
	case n == 0:
		c.Poison = true
	case n <= 10:
		c.Fails = 1
	}
	p.sent++
	value, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return &kgo.Record{Key: strconv.AppendInt([]byte("key-"), int64(p.rnd.IntN(keyCount)), 10), Value: value}, nil
}
