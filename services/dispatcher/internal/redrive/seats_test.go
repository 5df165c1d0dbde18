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
)

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
		if late.seated || len(all.seating.queue) != 1 || first != "waiting: dead letters of 16 other agents are worked on" {
			t.Errorf("it sits: %v, %q", late.seated, first)
		}
		desks[3].stand()
		desks[3].stand()
		<-done
		if !late.seated || len(all.seating.queue) != 0 || all.seating.taken != seats {
			t.Errorf("it sits: %v, %d wait", late.seated, len(all.seating.queue))
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

// hall is desks of active agents, all but the last with a seat. That one waits.
func hall(t *testing.T, cfg Config) (all *Desks, desks []*desk) {
	t.Helper()
	cfg.Logger, cfg.Report = slog.New(slog.DiscardHandler), func(status.DLQOrder) {}
	cfg.Finished = func(string) bool { return false }
	if cfg.Agent == nil {
		cfg.Agent = func(string) *spec.Agent { return &spec.Agent{Phase: spec.Active} }
	}
	all = NewDesks(cfg)
	for i := range seats + 1 {
		d := newDesk(all, fmt.Sprintf("t/%d", i))
		if d.sit() != (i < seats) {
			t.Fatalf("desk %d sits: %v", i, d.seated)
		}
		desks = append(desks, d)
	}
	return all, desks
}

func redriveOf(d *desk) *run {
	return &run{desk: d, order: command.Command{ID: "1", Verb: command.Redrive, Topic: d.agent, Agent: d.name}, paces: map[string]*Pace{}, examples: map[string]string{}, underway: map[string]redriven{}}
}

func TestSeatsAreTakenInTurn(t *testing.T) {
	all, desks := hall(t, Config{})
	for range 2 {
		if !desks[0].yields() {
			t.Error("nobody yields to the one that waits")
		}
	}
	if desks[1].yields() {
		t.Error("as many yield as others wait: one")
	}
	desks[0].stand()
	if desks[0].sit() {
		t.Error("a desk sits again before those that wait")
	}
	if !desks[16].sit() || desks[0].sit() || !desks[2].yields() {
		t.Error("the seat goes to another")
	}
	all.seating.forgo(desks[0])
	if desks[3].yields() || len(all.seating.queue) != 0 {
		t.Error("a desk yields to nobody")
	}
}

// An agent may be active without anybody who runs its tasks.
func TestAnOrderThatNothingMovesOfKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, desks := hall(t, Config{})
		r := redriveOf(desks[0])
		r.scan, r.stirred = &scan{}, time.Now()
		r.held = []*letter{{record: &kgo.Record{}, cause: "down"}}
		r.paces["down"] = &Pace{underway: first}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		if early, err := r.work(ctx); early != nil || !errors.Is(err, errYields) || time.Since(began) < patience || time.Since(began) > 2*patience {
			t.Errorf("%v, %v after %v", early, err, time.Since(began))
		}
		r.leave(ctx)
		if !desks[16].sit() {
			t.Error("the one that waits gets no seat")
		}
		alone := redriveOf(desks[1])
		alone.scan, alone.stirred, alone.held, alone.paces = r.scan, r.stirred, r.held, r.paces
		if early, err := alone.work(ctx); early != nil || !errors.Is(err, context.DeadlineExceeded) || len(all.seating.queue) != 0 {
			t.Errorf("nobody waits, and it ends with %v, %v", early, err)
		}
	})
}

func TestAnOrderThatFailsKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl, err := kgo.NewClient()
		if err != nil {
			t.Fatal(err)
		}
		cl.Close() // nothing can be asked of Kafka
		all, desks := hall(t, Config{Client: cl})
		order := redriveOf(desks[0]).order
		order.Expires = time.Now().Add(command.MaxLife)
		all.Order(order)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			desks[0].carryOut(ctx, order)
		}()
		await(ctx, time.Minute, nil)
		synctest.Wait()
		if !desks[16].sit() {
			t.Error("the one that waits gets no seat")
		}
		cancel()
		<-done
	})
}

// It sat, failed, and its agent is paused then.
func TestAnOrderThatBeginsToWaitGivesItsSeatAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, desks := hall(t, Config{Agent: func(string) *spec.Agent { return &spec.Agent{Phase: spec.Paused} }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if early, err := redriveOf(desks[0]).untilSeated(ctx); early != nil || !errors.Is(err, errHeld) {
			t.Errorf("%v, %v", early, err)
		}
		desks[0].leave(ctx)
		if early, err := redriveOf(desks[16]).untilSeated(ctx); early != nil || !errors.Is(err, errMoved) || len(desks[16].all.seating.queue) != 0 {
			t.Errorf("%v, %v: a paused agent's order waits for a seat", early, err)
		}
	})
}

// Who gives its seat to others and comes back redrives nothing more before what it redrove has ended.
func TestWhatIsUnderWayIsFollowedFromWhereItWasLeft(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "outcomes"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	opts := []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("outcomes")}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var since map[int32]int64
	for i, want := range []string{"second", "third"} {
		if i == 0 {
			cl.ProduceSync(ctx, kgo.StringRecord("first"))
		}
		seen := make(chan string, 10)
		stop, err := follow(ctx, opts, "outcomes", since, all, func(r *kgo.Record) { seen <- string(r.Value) })
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			cl.ProduceSync(ctx, kgo.StringRecord("second"))
		}
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("%q comes, not %q", got, want)
			}
		case <-ctx.Done():
			t.Errorf("%q doesn't come", want)
		}
		since = stop()
		cl.ProduceSync(ctx, kgo.StringRecord("third")) // while nobody follows
	}
	_, desks := hall(t, Config{})
	r := redriveOf(desks[0])
	r.paces["down"], r.underway["id"] = &Pace{underway: first}, redriven{cause: "down", round: 1}
	r.since = since
	if r.begin(); r.paces["down"].Room() != 0 || len(r.underway) != 1 {
		t.Error("what is under way is forgotten")
	}
	r.since = nil
	if r.begin(); r.paces["down"].Room() != first || len(r.underway) != 0 {
		t.Error("what can't be followed holds up the others")
	}
}
