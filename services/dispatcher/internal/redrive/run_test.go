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
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnOrderIsCarriedOutOnlyOnceItsEndIsTold(t *testing.T) {
	names := topics.Names{Prefix: "reeve"}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, names.Commands()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	noted := func() int64 {
		ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), names.Commands())
		if err != nil {
			t.Fatal(err)
		}
		return ends[names.Commands()][0].Offset
	}
	away := errors.New("Kafka is away")
	var told []status.DLQOrder
	cfg := Config{Client: cl, Names: names, Service: "dispatcher", Node: "d0", Logger: slog.New(slog.DiscardHandler),
		Ended: func(_ context.Context, o status.DLQOrder) error {
			if away == nil {
				told = append(told, o)
			}
			return away
		},
		Trim: func(context.Context, string, map[int32]int64) error { return nil },
	}
	now := time.Now()
	r := &run{desk: newDesk(&Desks{cfg: cfg}, "t/n"), moved: 3, order: command.Command{ID: "o1", Verb: command.Purge, Topic: "t", Agent: "n", At: now, Expires: now}}
	if err := r.finish(t.Context(), status.OrderDone, ""); !errors.Is(err, away) || noted() != 0 {
		t.Errorf("nobody has heard of its end, and the order counts as carried out: %v", err)
	}
	away = nil
	if err := r.finish(t.Context(), status.OrderDone, "why"); err != nil || noted() != 1 {
		t.Errorf("%v, %d notes", err, noted())
	}
	if len(told) != 1 || told[0].ID != "o1" || told[0].State != status.OrderDone || told[0].Reason != "why" || told[0].Moved != 3 || told[0].Timestamp == 0 {
		t.Errorf("%+v", told)
	}
}
