package hop_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
)

// A topic that is deleted and made again is written again, also by producers that have written to the one before.
func TestATopicThatWasMadeAgainIsWritten(t *testing.T) {
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
	commit := func(value string) error {
		return p.Commit(t.Context(), hop.Tx{Member: m, Generation: m.Generation(), Records: []*kgo.Record{{Topic: "out", Value: []byte(value)}},
			Offsets: map[int32]hop.Position{0: {Offset: 1}}})
	}
	for range 2 { // by each of the pool's producers
		if err := commit("before"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.adm.DeleteTopics(t.Context(), "out"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.adm.CreateTopics(t.Context(), 1, 1, nil, "out"); err != nil {
		t.Fatal(err)
	}
	done := 0
	for range 4 { // each of them may learn of it by a transaction that fails; no record is to blame
		switch err := commit("after"); {
		case err == nil:
			done++
		case !errors.Is(err, hop.ErrOutdated):
			t.Fatal(err)
		}
	}
	if seen := s.values("out", done); done < 2 || len(seen) != 1 || seen["after"] != done {
		t.Errorf("%d transactions of 4 are committed, the topic has %v", done, seen)
	}
	if _, err := s.adm.DeleteTopics(t.Context(), "out"); err != nil {
		t.Fatal(err)
	}
	for range 3 { // one that is gone is said so in the end
		var refused *hop.RecordsError
		switch err := commit("late"); {
		case errors.As(err, &refused) && errors.Is(refused.Refused[0], kerr.UnknownTopicOrPartition):
			return
		case !errors.Is(err, hop.ErrOutdated):
			t.Fatal(err)
		}
	}
	t.Error("a topic that is gone isn't said so")
}

// A topic that is deleted and made again is consumed from its beginning, by members that have consumed the one before.
func TestATopicThatWasMadeAgainIsConsumed(t *testing.T) {
	s := newStand(t, "in")
	s.publish("in", 0, 3)
	h := newHandler()
	m := s.member("a", h)
	before := h.last(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next := func() string {
		fs, err := m.Poll(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer m.AllowRebalance()
		return string(fs.Records()[0].Value)
	}
	for range 3 {
		next()
	}
	for again := range 2 {
		if _, err := s.adm.DeleteTopics(t.Context(), "in"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.adm.CreateTopics(t.Context(), 1, 1, nil, "in"); err != nil {
			t.Fatal(err)
		}
		s.publish("in", 10*again, 2)
		if got, want := next()+" "+next(), fmt.Sprintf("%d %d", 10*again, 10*again+1); got != want {
			t.Errorf("it brings %s, not %s", got, want)
		}
		if after := h.last(t); after.TopicID == before.TopicID || after.Offset != 0 {
			t.Errorf("%+v", after)
		} else {
			before = after
		}
	}
}
