package hop_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
)

func (s *stand) limit(topic, bytes string) {
	s.t.Helper()
	rs, err := s.adm.AlterTopicConfigs(s.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &bytes}}, topic)
	if err == nil {
		err = rs[0].Err
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// A limit that is raised or lowered counts at once, without a new process: what was refused passes, and a batch that is
// too large now is no fault of its records.
func TestAChangedRecordLimitCounts(t *testing.T) {
	s := newStand(t, "in", "out")
	s.publish("in", 0, 1)
	h := newHandler()
	m := s.member("a", h)
	h.last(t)
	if fs, err := m.Poll(t.Context(), 1); err != nil || fs.NumRecords() != 1 {
		t.Fatal(err)
	}
	m.AllowRebalance()
	p := s.pool("a")
	noise := rand.NewChaCha8([32]byte{}) // the broker's limit is on what is sent, which compression makes smaller
	commit := func(n, size int) error {
		rs := make([]*kgo.Record, n)
		for i := range rs {
			rs[i] = &kgo.Record{Topic: "out", Partition: 0, Value: make([]byte, size)}
			_, _ = noise.Read(rs[i].Value) // never fails
		}
		return p.Commit(t.Context(), hop.Tx{Member: m, Generation: m.Generation(), Records: rs, Offsets: map[int32]hop.Position{0: {Offset: 1}}})
	}
	eventually := func(what string, n, size int) {
		t.Helper()
		var refused *hop.RecordsError
		for range 4 { // each of the pool's two producers learns of it by one transaction
			err := commit(n, size)
			if err == nil {
				return
			}
			if errors.As(err, &refused) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		t.Fatalf("%s isn't seen", what)
	}
	refused := &hop.RecordsError{}
	if err := commit(1, 1_500_000); !errors.As(err, &refused) || !errors.Is(refused.Refused[0], kerr.MessageTooLarge) {
		t.Fatalf("beyond the limit: %v", err)
	}
	s.limit("out", "3000000")
	eventually("a raised limit", 1, 1_500_000)
	s.limit("out", "1000")
	eventually("a lowered limit", 20, 300)
	if err := commit(1, 5_000); !errors.As(err, &refused) {
		t.Errorf("beyond the lowered limit: %v", err)
	}
}
