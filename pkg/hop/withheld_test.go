package hop_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/hop"
)

// Where Kafka doesn't let a process end a transaction that the broker forgot, a person is told where readers stand still and
// what to do; once the right is there it is ended, and that is told too.
func TestAForgottenTransactionThatMayNotBeEndedIsToldAndEndedOnceItMay(t *testing.T) {
	s := newStand(t, "in", "out")
	type told struct {
		message  string
		resolved bool
	}
	alerts := make(chan told, 100)
	var allowed atomic.Bool
	p, err := hop.NewPool(t.Context(), hop.PoolConfig{Opts: s.opts(), Service: "test", Node: "a", Size: 2,
		Withheld: func(message string, resolved bool) {
			alerts <- told{message, resolved}
			allowed.Store(true) // somebody grants it at once: after 5 s the fake ends the transaction by itself
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	h := newHandler()
	m := s.member("a", h)
	h.last(t)
	s.forget("CompleteCommit")
	// The fake would end the transaction when its producer is made anew; a broker that has forgotten it doesn't.
	s.fake.ControlKey(int16(kmsg.InitProducerID), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		resp := r.(*kmsg.InitProducerIDRequest).ResponseKind().(*kmsg.InitProducerIDResponse)
		resp.ErrorCode = kerr.ConcurrentTransactions.Code
		return resp, nil, true
	})
	s.fake.ControlKey(int16(kmsg.WriteTxnMarkers), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		if allowed.Load() {
			return nil, nil, false
		}
		resp := r.(*kmsg.WriteTxnMarkersRequest).ResponseKind().(*kmsg.WriteTxnMarkersResponse)
		for _, marker := range r.(*kmsg.WriteTxnMarkersRequest).Markers {
			mr := kmsg.NewWriteTxnMarkersResponseMarker()
			mr.ProducerID = marker.ProducerID
			for _, topic := range marker.Topics {
				tr := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
				tr.Topic = topic.Topic
				for _, partition := range topic.Partitions {
					pr := kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
					pr.Partition, pr.ErrorCode = partition, kerr.ClusterAuthorizationFailed.Code
					tr.Partitions = append(tr.Partitions, pr)
				}
				mr.Topics = append(mr.Topics, tr)
			}
			resp.Markers = append(resp.Markers, mr)
		}
		return resp, nil, true
	})
	if err := p.Commit(t.Context(), hop.Tx{
		Member: m, Generation: m.Generation(), Records: []*kgo.Record{{Topic: "out", Value: []byte("v"), Partition: hop.AnyPartition}},
		Offsets: map[int32]hop.Position{0: {Offset: 0}},
	}); err != nil {
		t.Errorf("the commit says %v", err)
	}
	next := func() told {
		t.Helper()
		select {
		case got := <-alerts:
			return got
		case <-time.After(time.Minute):
			t.Fatal("nothing is told")
		}
		return told{}
	}
	if got := next(); got.resolved || !strings.Contains(got.message, "out/") || !strings.Contains(got.message, "Alter on the cluster") || !strings.Contains(got.message, "kafka-transactions.sh") {
		t.Errorf("%+v", got)
	}
	for got := next(); !got.resolved; got = next() { // the topics come one by one
	}
	if seen := s.values("out", 1); seen["v"] != 1 {
		t.Errorf("readers see %v", seen)
	}
}
