package fleet

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestAfterAGapNodesHaveTheirTimeToBeHeardOf(t *testing.T) {
	t0 := time.Unix(1_000_000, 0)
	at := func(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }
	var e ear
	if e.gap(at(100)) != nil {
		t.Error("a gap before anything was asked")
	}
	for s := range 11 {
		e.answered(at(float64(s)))
	}
	for _, c := range []struct {
		at   float64
		want *Gap
	}{
		{10, nil}, {13, nil}, {13.1, &Gap{From: at(10)}}, {60, &Gap{From: at(10)}},
	} {
		if got := e.gap(at(c.at)); (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("at %v: got %v, want %v", c.at, got, c.want)
		}
	}
	for s := 65; s <= 80; s++ {
		e.answered(at(float64(s)))
		want := s < 75
		if got := e.gap(at(float64(s))); (got != nil) != want || want && *got != (Gap{at(10), at(65)}) {
			t.Errorf("%d s after a return: %v", s-65, got)
		}
	}
}

func TestWhoFollowsKnowsThatKafkaAnswersThoughThereIsNothingToRead(t *testing.T) {
	names := topics.Names{}
	opts := []kgo.Opt{kgo.SeedBrokers(testenv.Kfake(t).Address)}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := kafka.EnsureTopics(t.Context(), cl, -1, kafka.StatusTopic(names)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f := New()
	ended := make(chan error, 1)
	go func() { ended <- f.Follow(ctx, cl, opts, names.Status(), func() {}) }()
	last := func() time.Time { f.mu.Lock(); defer f.mu.Unlock(); return f.ear.last }
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var answers int
	for before := (time.Time{}); answers < 3 && ctx.Err() == nil; <-tick.C {
		if at := last(); at.After(before) {
			answers, before = answers+1, at
		}
	}
	if answers < 3 {
		t.Error("no fetch was told of")
	}
	if gap := f.View(last()).Unheard; gap != nil {
		t.Errorf("a gap: %v", gap)
	}
	if gap := f.View(last().Add(time.Minute)).Unheard; gap == nil || !gap.Until.IsZero() {
		t.Errorf("no gap: %v", gap)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
