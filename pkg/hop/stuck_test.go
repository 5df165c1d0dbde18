package hop_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/hop"
)

// gate holds the first look at stable offsets until open is closed; there says that it is held.
func (s *stand) gate() (there, open chan struct{}) {
	there, open = make(chan struct{}), make(chan struct{})
	held := false
	s.fake.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		if r.(*kmsg.OffsetFetchRequest).RequireStable && !held {
			held = true
			close(there)
			s.fake.SleepControl(func() { <-open })
		}
		return nil, nil, false
	})
	return there, open
}

// A member that the group drops while it still looks for the position of its partitions joins anew.
func TestDroppedDuringAssignmentJoinsAgain(t *testing.T) {
	s := newStand(t, "in")
	there, open := s.gate()
	s.member("a", newHandler())
	<-there
	if _, err := s.adm.LeaveGroup(t.Context(), kadm.LeaveGroup("g").InstanceIDs("test.a")); err != nil {
		t.Fatal(err)
	}
	s.member("b", newHandler()) // so that the group goes on
	close(open)
	s.await("a", "b")
}

// await waits until the group has just these nodes as members, and all of them are settled in.
func (s *stand) await(nodes ...string) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		gs, err := s.adm.DescribeGroups(s.t.Context(), "g")
		if err != nil {
			s.t.Fatal(err)
		}
		found := 0
		for _, m := range gs["g"].Members {
			for _, n := range nodes {
				if m.InstanceID != nil && *m.InstanceID == "test."+n {
					found++
				}
			}
		}
		if gs["g"].State == "Stable" && found == len(nodes) && found == len(gs["g"].Members) {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("the group is %s with %d members", gs["g"].State, len(gs["g"].Members))
		}
	}
}

// A member whose partitions' positions can't be had, since the topic is gone, can be closed all the same.
func TestCloseDuringAssignment(t *testing.T) {
	s := newStand(t, "in")
	there, open := s.gate()
	m := s.member("a", newHandler())
	<-there
	if _, err := s.adm.DeleteTopics(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	close(open)
	closed := make(chan struct{})
	go func() {
		m.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Fatal("it hangs")
	}
}

// A transaction whose end isn't known, since the brokers are gone, doesn't hold up a stop; and nothing of it is repeated.
func TestDoubtEndsWithTheCaller(t *testing.T) {
	s := newStand(t, "in", "out")
	ending := make(chan struct{})
	gone := false
	s.fake.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		if _, ok := r.(*kmsg.EndTxnRequest); ok && !gone {
			gone = true
			close(ending)
		}
		return nil, errors.New("gone"), gone
	})
	p := s.pool("a")
	h := newHandler()
	m := s.member("a", h)
	h.last(t)
	commit := func(ctx context.Context) error {
		return p.Commit(ctx, hop.Tx{Member: m, Generation: m.Generation(), Offsets: map[int32]hop.Position{0: {Offset: 0}},
			Records: []*kgo.Record{{Topic: "out", Partition: hop.AnyPartition, Value: []byte("x")}}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- commit(ctx) }()
	<-ending
	cancel()
	select {
	case err := <-result:
		if !errors.Is(err, hop.ErrInDoubt) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits on")
	}
	if err := commit(t.Context()); !errors.Is(err, hop.ErrInDoubt) {
		t.Errorf("the next transaction: %v", err)
	}
}

// A poll ends with its context, also while the member looks for positions in vain: whoever stops has to get on.
func TestAPollEndsWhileThePositionIsntKnown(t *testing.T) {
	s := newStand(t, "in")
	looked := make(chan struct{}, 100)
	s.fake.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		if !r.(*kmsg.OffsetFetchRequest).RequireStable {
			return nil, nil, false
		}
		looked <- struct{}{}
		return nil, errors.New("no answer"), true
	})
	m := s.member("a", newHandler())
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-looked
		cancel()
	}()
	done := make(chan error, 1)
	go func() {
		_, err := m.Poll(ctx, 10)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the poll ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the poll goes on after its context has ended")
	}
}

// A static member that comes back finds the assignment that it had. Where its topic was made again with fewer partitions
// meanwhile, it gets those that there are.
func TestAnAssignmentOfAnEarlierTopicIsGivenUp(t *testing.T) {
	s := newStand(t)
	create := func(partitions int32) {
		t.Helper()
		if _, err := s.adm.CreateTopics(t.Context(), partitions, 1, nil, "in"); err != nil {
			t.Fatal(err)
		}
	}
	create(3)
	h := newHandler()
	m := s.member("a", h)
	h.last(t)
	m.Close()
	if _, err := s.adm.DeleteTopics(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	create(2)
	s.publish("in", 0, 10)
	again := s.member("a", newHandler())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for n := 0; n < 10; {
		fs, err := again.Poll(ctx, 10)
		if err != nil {
			t.Fatalf("%d of 10 records: %v", n, err)
		}
		fs.EachRecord(func(*kgo.Record) { n++ })
		again.AllowRebalance()
	}
}
