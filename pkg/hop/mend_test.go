package hop_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/hop"
)

// forget lets the coordinator say of every transaction that it has ended so, while its partitions know nothing of that.
func (s *stand) forget(state string) {
	var id int64
	var epoch int16
	s.fake.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		req := r.(*kmsg.EndTxnRequest)
		id, epoch = req.ProducerID, req.ProducerEpoch
		resp := req.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = kerr.UnknownServerError.Code
		return resp, nil, true
	})
	s.fake.ControlKey(int16(kmsg.DescribeTransactions), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		req := r.(*kmsg.DescribeTransactionsRequest)
		resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
		for _, name := range req.TransactionalIDs {
			t := kmsg.NewDescribeTransactionsResponseTransactionState()
			t.TransactionalID, t.State, t.ProducerID, t.ProducerEpoch = name, state, id, epoch+1
			resp.TransactionStates = append(resp.TransactionStates, t)
		}
		return resp, nil, true
	})
}

// A broker that died may have forgotten to end a transaction on some of its partitions. Their readers would stand still
// for good, and the producer's next transaction would decide for the forgotten one.
func TestATransactionThatTheBrokerForgotIsEndedAsItWasDecided(t *testing.T) {
	for state, want := range map[string]map[string]int{
		"CompleteCommit": {"forgotten": 1, "next": 1},
		"CompleteAbort":  {"next": 1},
	} {
		t.Run(state, func(t *testing.T) {
			s := newStand(t, "in", "out")
			h := newHandler()
			m, p := s.member("a", h), s.pool("a")
			h.last(t)
			s.forget(state)
			commit := func(value string) error {
				return p.Commit(t.Context(), hop.Tx{
					Member: m, Generation: m.Generation(), Records: []*kgo.Record{{Topic: "out", Value: []byte(value), Partition: hop.AnyPartition}},
					Offsets: map[int32]hop.Position{0: {Offset: 0}},
				})
			}
			if err := commit("forgotten"); (err == nil) != (state == "CompleteCommit") {
				t.Errorf("the commit says %v", err)
			}
			cl, err := kgo.NewClient(s.opts()...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "out", Value: []byte("next")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			seen := s.values("out", len(want))
			if len(seen) != len(want) || seen["next"] != want["next"] || seen["forgotten"] != want["forgotten"] {
				t.Errorf("readers see %v, not %v", seen, want)
			}
		})
	}
}

// One producer that can't be seen to, since it wrote to a partition without a leader, keeps no other from being used again.
func TestADoubtedProducerHoldsUpNoOther(t *testing.T) {
	s := newStand(t, "in", "out", "lame")
	h := newHandler()
	m, p := s.member("a", h), s.pool("a") // of two producers
	h.last(t)
	commit := func(topic string) {
		if err := p.Commit(t.Context(), hop.Tx{
			Member: m, Generation: m.Generation(), Records: []*kgo.Record{{Topic: topic, Value: []byte("v"), Partition: hop.AnyPartition}},
			Offsets: map[int32]hop.Position{0: {Offset: 0}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	commit("lame")
	commit("out")
	looked, once := make(chan struct{}), sync.Once{}
	s.fake.ControlKey(int16(kmsg.DescribeProducers), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		req := r.(*kmsg.DescribeProducersRequest)
		if req.Topics[0].Topic != "lame" {
			return nil, nil, false
		}
		once.Do(func() { close(looked) })
		resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
		resp.Topics = []kmsg.DescribeProducersResponseTopic{{Topic: "lame", Partitions: []kmsg.DescribeProducersResponseTopicPartition{{ErrorCode: kerr.LeaderNotAvailable.Code}}}}
		return resp, nil, true
	})
	var made atomic.Int64
	s.fake.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		made.Add(1)
		return nil, nil, false
	})
	s.fake.ControlKey(int16(kmsg.Heartbeat), func(kmsg.Request) (kmsg.Response, error, bool) {
		return nil, errors.New("the connection is lost"), true
	})
	<-looked
	commit("out")
	if made.Load() > 0 {
		t.Error("another producer had to be made")
	}
}
