package hop_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/hop"
)

// A cluster that has just started answers late, or cuts its connections: a process that starts beside it waits.
func TestAPoolWaitsForItsCoordinators(t *testing.T) {
	t.Parallel()
	s := newStand(t, "in", "out")
	var asked atomic.Int64
	s.fake.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		if n := asked.Add(1); n <= 3 || n == 2*hop.MaxProducers || n == 2*hop.MaxProducers+2 { // of both: what was left, and the producers
			return nil, errors.New("cut"), true
		}
		return nil, nil, false
	})
	p := s.pool("a", kgo.RequestRetries(0))
	s.publish("in", 0, 1)
	h := newHandler()
	m := s.member("a", h)
	h.last(t)
	err := p.Commit(t.Context(), hop.Tx{Member: m, Generation: m.Generation(), Records: []*kgo.Record{{Topic: "out", Partition: hop.AnyPartition, Value: []byte("0")}},
		Offsets: map[int32]hop.Position{0: {Offset: 1}}})
	if err != nil {
		t.Error(err)
	}
	if got := s.values("out", 1); got["0"] != 1 {
		t.Errorf("%v", got)
	}
}

// It waits no longer than it may, and says for what.
func TestAPoolThatWaitsInVainSaysForWhat(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.fake.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		return nil, errors.New("cut"), true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	p, err := hop.NewPool(ctx, hop.PoolConfig{Opts: s.opts(kgo.RequestRetries(0)), Service: "test", Node: "a", Size: 1})
	if err == nil {
		p.Close()
		t.Fatal("it has producers that nobody gave it")
	}
	if !strings.Contains(err.Error(), "end transactions of reeve-test-a-0: ") || strings.HasSuffix(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("it says only that its time was over: %v", err)
	}
	if ctx.Err() == nil || !errors.Is(err, context.DeadlineExceeded) { // by which a stop is told from a failure
		t.Errorf("it gave up at once: %v", err)
	}
}
