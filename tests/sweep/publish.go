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

const (
	maxWork  = 20_000 // microseconds
	keyCount = 5_000
	// backlog is how many events the publisher keeps unfinished: enough that every blow finds over a thousand tasks
	// dispatched and unsettled, few enough that the end doesn't take minutes.
	backlog = 3_000
)

// publisher feeds the system as fast as it finishes, until its context ends.
type publisher struct {
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
		missing := backlog - (max(p.sent, seen.published) - seen.finals)
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
	c := Content{Seq: p.sent, WorkUS: p.rnd.IntN(maxWork)}
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
