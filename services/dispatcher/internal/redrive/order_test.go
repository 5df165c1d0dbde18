package redrive

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Whoever led before has noted that the order is carried out, which isn't read yet. What it left on purpose must not be
// moved.
func TestAnOrderThatTheLastLeaderCarriedOutIsNotBegunAgain(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topics.Names{}.DLQ("t", "n")))
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
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topics.Names{}.DLQ("t", "n"), Value: []byte("left on purpose")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	caughtUp := false
	d := newDesk(NewDesks(Config{Opts: opts, Client: cl, Names: topics.Names{}, Service: "dispatcher", Node: "d0", Logger: slog.New(slog.DiscardHandler),
		Agent:    func(string) *spec.Agent { return &spec.Agent{Topic: "t", Name: "n", Phase: spec.Active} },
		Finished: func(string) bool { return caughtUp }, CatchUp: func(context.Context) error { caughtUp = true; return nil }, Report: func(status.DLQOrder) {},
		Ended: func(context.Context, status.DLQOrder) error { return errors.New("it has ended once more") },
	}), "t/n")
	r := &run{desk: d, order: command.Command{ID: "1", Verb: command.Purge, Topic: "t", Agent: "n", Dead: &command.Dead{All: true, Ends: map[int32]int64{0: 1}}}, paces: map[string]*Pace{}}
	if err := r.carryOut(ctx); err != nil || r.moved != 0 {
		t.Errorf("%d are moved, %v", r.moved, err)
	}
	d.quit(ctx, d.currentMember())
	d.stand()
}
