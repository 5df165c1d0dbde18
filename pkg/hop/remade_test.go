package hop_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

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

// slowMetadata is the log of a member and of its client. Once the member leaves its group the client's metadata stands still
// until the group has said so.
type slowMetadata struct {
	member      func() *kgo.Client
	still, lost chan struct{}
	once        sync.Once
}

func (s *slowMetadata) Handle(_ context.Context, r slog.Record) error {
	if !strings.Contains(r.Message, "joining its group anew") {
		return nil
	}
	refresh := time.NewTicker(10 * time.Millisecond)
	defer refresh.Stop()
	for {
		s.member().ForceMetadataRefresh()
		select {
		case s.still <- struct{}{}:
			return nil
		case <-refresh.C:
		}
	}
}

func (s *slowMetadata) Enabled(context.Context, slog.Level) bool { return true }

func (s *slowMetadata) WithAttrs([]slog.Attr) slog.Handler { return s }

func (s *slowMetadata) WithGroup(string) slog.Handler { return s }

func (s *slowMetadata) Level() kgo.LogLevel { return kgo.LogLevelInfo }

func (s *slowMetadata) Log(_ kgo.LogLevel, message string, _ ...any) {
	if !strings.Contains(message, "metadata update triggered") {
		return
	}
	select {
	case <-s.still:
		<-s.lost
	default:
	}
}

type loser struct {
	*handler
	slow *slowMetadata
}

func (l loser) Lost(ps []int32) {
	l.handler.Lost(ps)
	l.slow.once.Do(func() { close(l.slow.lost) })
}

// The group may tell the member that it has left before the client has forgotten the topic. No partition is revoked then any
// more, and the topic is consumed again all the same.
func TestATopicThatWasMadeAgainIsConsumedWhereTheGroupIsFaster(t *testing.T) {
	t.Parallel()
	s := newStand(t, "in")
	slow := &slowMetadata{still: make(chan struct{}), lost: make(chan struct{})}
	h := newHandler()
	made := make(chan *hop.Member, 1)
	slow.member = sync.OnceValue(func() *kgo.Client { return (<-made).Client() })
	m, err := hop.NewMember(hop.MemberConfig{Opts: s.opts(kgo.WithLogger(slow)), Group: "g", Topic: "in", Service: "test", Node: "a", Handler: loser{h, slow},
		Session: 2 * time.Second, Logger: slog.New(slow)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	made <- m
	h.last(t)
	if _, err := s.adm.DeleteTopics(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.adm.CreateTopics(t.Context(), 1, 1, nil, "in"); err != nil {
		t.Fatal(err)
	}
	s.publish("in", 7, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fs, err := m.Poll(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.AllowRebalance()
	if got := string(fs.Records()[0].Value); got != "7" {
		t.Errorf("it brings %s", got)
	}
	select {
	case <-slow.lost:
	default:
		t.Error("the group has not told that the member left it")
	}
}

// A broker that is behind may not know the topic by its id for long. Nobody leaves the group for that.
func TestATopicThatABrokerDoesNotKnowYetIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newStand(t, "in")
	h := newHandler()
	m := s.member("a", h)
	h.last(t)
	behind := 7 // the client keeps the first five for itself
	s.fake.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		req := r.(*kmsg.FetchRequest)
		if behind == 0 || len(req.Topics) == 0 {
			return nil, nil, false
		}
		behind--
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		for _, rt := range req.Topics {
			t := kmsg.NewFetchResponseTopic()
			t.Topic, t.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewFetchResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, kerr.UnknownTopicID.Code
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp, nil, true
	})
	s.publish("in", 7, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fs, err := m.Poll(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.AllowRebalance()
	h.mu.Lock()
	defer h.mu.Unlock()
	if string(fs.Records()[0].Value) != "7" || len(h.assigned) != 1 || h.lost != 0 {
		t.Errorf("%d records, %d assignments, %d losses", fs.NumRecords(), len(h.assigned), h.lost)
	}
}
