package hop_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/topics"
)

// hold holds the name test/a until the test's end, or says that it was replaced.
func (s *stand) hold() <-chan error {
	s.t.Helper()
	cl, err := kgo.NewClient(s.opts()...)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		done <- hop.HoldName(ctx, cl, topics.Names{}, "test", "a", slog.New(slog.NewTextHandler(testWriter{s.t}, nil)))
	}()
	s.t.Cleanup(func() {
		cancel()
		<-ended
		cl.Close()
	})
	return done
}

// holder waits until the name has a member other than the given one.
func (s *stand) holder(but string) string {
	s.t.Helper()
	group := topics.Names{}.NodeGroup("test", "a")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); ; {
		gs, err := s.adm.DescribeGroups(s.t.Context(), group)
		if err == nil && len(gs[group].Members) == 1 && gs[group].State == "Stable" && gs[group].Members[0].MemberID != but {
			return gs[group].Members[0].MemberID
		}
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("nobody holds the name: %+v, %v", gs[group], err)
		}
	}
}

func TestTheNewerOfTwoHoldsTheName(t *testing.T) {
	s := newStand(t)
	older := s.hold()
	first := s.holder("")
	newer := s.hold()
	select {
	case err := <-older:
		if !errors.Is(err, hop.ErrReplaced) {
			t.Errorf("the older one ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the older one goes on")
	}
	second := s.holder(first)
	// A session that expired while nobody else came is taken up again.
	if _, err := s.adm.LeaveGroup(t.Context(), kadm.LeaveGroup(topics.Names{}.NodeGroup("test", "a")).InstanceIDs("test.a")); err != nil {
		t.Fatal(err)
	}
	s.holder(second)
	select {
	case err := <-newer:
		t.Errorf("the newer one ended with %v", err)
	default:
	}
}
