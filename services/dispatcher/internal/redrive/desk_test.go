package redrive

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestWhatIsSettledOfATopicSaysNothingOfOneThatWasMadeAgain(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	opts := []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.MetadataMinAge(50 * time.Millisecond)}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d := newDesk(&Desks{cfg: Config{Opts: opts, Client: cl, Names: topics.Names{}, Service: "dispatcher", Node: "d0", Logger: slog.New(slog.DiscardHandler)}}, "t/n")
	adm := kadm.NewClient(cl)
	made := func() (kadm.TopicID, []int32) {
		t.Helper()
		if _, err := adm.CreateTopic(ctx, 1, 1, nil, d.topic); err != nil {
			t.Fatal(err)
		}
		id, partitions, err := d.exists(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return id, partitions
	}
	first, partitions := made()
	if _, _, err := d.join(ctx, first, partitions); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.ledgers[0] = offsets.Ledger{Low: 500}
	d.mu.Unlock()
	if l, _, err := d.join(ctx, first, partitions); err != nil || l[0].Low != 500 {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := adm.DeleteTopic(ctx, d.topic); err != nil {
		t.Fatal(err)
	}
	again, partitions := made()
	l, _, err := d.join(ctx, again, partitions)
	if err != nil || l[0].Low != 0 || d.currentMember().TopicID() != again {
		t.Errorf("%v, %v", l, err)
	}
	d.quit(ctx, d.currentMember())
	if _, _, err := d.join(ctx, first, partitions); !errors.Is(err, errMoved) {
		t.Errorf("an order of the first topic is carried out on the second: %v", err)
	}
	d.quit(ctx, d.currentMember())
}

// Where the log of dead letters has lost its end, what was settled there says nothing of those that come at these offsets.
func TestDeadLettersAtOffsetsThatALogHasLostAreOpen(t *testing.T) {
	d := &desk{woken: make(chan struct{}, 1), version: 3, ledgers: map[int32]offsets.Ledger{0: offsets.Ledger{Low: 10}.Settle(15, 30)}}
	if at := d.Truncated(t.Context(), 0, 20); at != 20 {
		t.Errorf("it goes on at %d", at)
	}
	if l := d.ledgers[0]; l.Open(19) || !l.Open(20) || !l.Open(29) || l.Open(9) || d.version != 4 {
		t.Errorf("%+v, version %d", l, d.version)
	}
}
