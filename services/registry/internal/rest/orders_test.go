package rest

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDeadLettersBeyondTheTimeToLookAtThemAreNoError(t *testing.T) {
	names := topics.Names{Prefix: "reeve"}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, names.DLQ("t", "n")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	opts := []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
	b, err := bus.New(opts, names, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: names.DLQ("t", "n"), Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	g, err := b.Graves(t.Context(), "t", "n")
	if err != nil {
		t.Fatal(err)
	}
	s, n := &Server{Bus: b}, 0
	count := func(*kgo.Record) { n++ }
	if complete, err := s.eachDead(t.Context(), time.Minute, g, 10, count); !complete || err != nil || n != 1 {
		t.Errorf("%d dead letters, complete %v, %v", n, complete, err)
	}
	if complete, err := s.eachDead(t.Context(), time.Nanosecond, g, 10, count); complete || err != nil {
		t.Errorf("without time: complete %v, %v", complete, err)
	}
}
