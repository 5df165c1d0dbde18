package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Whoever led before has noted that the order is carried out, which isn't read yet. What it left on purpose must not be
// moved.
func TestAnOrderThatTheLastLeaderCarriedOutIsNotBegunAgain(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topics.Names{}.DLQ("t", "n")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	opts := []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.MetadataMinAge(50 * time.Millisecond)}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topics.Names{}.DLQ("t", "n"), Value: []byte("left on purpose")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	caughtUp := false
	d := newDesk(NewDesks(Config{Opts: opts, Client: cl, Names: topics.Names{}, Service: "dispatcher", Node: "d0", Logger: slog.New(slog.DiscardHandler),
		Agent:    func(string) *spec.Agent { return &spec.Agent{Topic: "t", Name: "n", Phase: spec.Active} },
		Finished: func(string) bool { return caughtUp }, CatchUp: func(context.Context) error { caughtUp = true; return nil }, Report: func(status.DLQOrder) {},
		Ended: func(context.Context, status.DLQOrder) error { return errors.New("it has ended once more") },
	}), "t/n")
	r := &run{desk: d, order: command.Command{ID: "1", Verb: command.Purge, Topic: "t", Agent: "n", Dead: &command.Dead{All: true, Ends: map[int32]int64{0: 1}}}, paces: map[string]*Pace{}}
	if err := r.carryOut(ctx); err != nil || r.moved != 0 {
		t.Errorf("%d are moved, %v", r.moved, err)
	}
	d.quit(ctx, d.currentMember())
	d.stand()
}

func TestOnlySoManyDesksAreInTheirGroupsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := make(chan string, 10)
		all := NewDesks(Config{Logger: slog.New(slog.DiscardHandler), Finished: func(string) bool { return false },
			Agent: func(string) *spec.Agent { return &spec.Agent{Phase: spec.Active} }, Report: func(o status.DLQOrder) { said <- o.State + ": " + o.Reason }})
		var desks []*desk
		for i := range seats {
			d := newDesk(all, fmt.Sprintf("t/%d", i))
			for range 2 { // it has one then
				if !d.sit() {
					t.Fatal("no seat")
				}
			}
			desks = append(desks, d)
		}
		late := &run{desk: newDesk(all, "t/late"), order: command.Command{ID: "1", Verb: command.Redrive, Topic: "t", Agent: "late"}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if early, err := late.untilSeated(t.Context()); early != nil || err != nil {
				t.Errorf("%v, %v", early, err)
			}
		}()
		first := <-said
		synctest.Wait()
		if late.seated || all.waiters.Load() != 1 || first != "waiting: dead letters of 16 other agents are worked on" {
			t.Errorf("it sits: %v, %q", late.seated, first)
		}
		desks[3].stand()
		desks[3].stand()
		<-done
		if !late.seated || all.waiters.Load() != 0 || len(all.seats) != seats {
			t.Errorf("it sits: %v, %d wait", late.seated, all.waiters.Load())
		}
	})
}

// A paused agent's order keeps no seat, and nobody in the group.
func TestAnOrderThatWaitsKeepsNoSeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &spec.Agent{Phase: spec.Paused}
		all := NewDesks(Config{Logger: slog.New(slog.DiscardHandler), Finished: func(string) bool { return false }, Agent: func(string) *spec.Agent { return a }, Report: func(status.DLQOrder) {}, Leads: func() bool { return true }})
		d := newDesk(all, "t/n")
		r := &run{desk: d, order: command.Command{ID: "1", Verb: command.Redrive}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if early, err := r.untilSeated(ctx); early != nil || err == nil || d.seated {
			t.Errorf("%v, %v, it sits: %v", early, err, d.seated)
		}
		a.Phase = spec.Terminated
		if early, err := r.untilSeated(t.Context()); err != nil || early == nil || early.state != status.OrderRefused {
			t.Errorf("%v, %v", early, err)
		}
		all.Cancel(command.Command{ID: "c", Verb: command.CancelOrder, Order: "1", Topic: "t", Agent: "n", Actor: "ann", Expires: time.Now().Add(time.Hour)})
		if early, err := r.untilSeated(t.Context()); err != nil || early == nil || *early != (conclusion{status.OrderCancelled, "cancelled by ann"}) {
			t.Errorf("%v, %v", early, err)
		}
	})
}
