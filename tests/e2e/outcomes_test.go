package e2e

import (
	"context"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"
)

// outcomes reads the outcomes topic as a user would and counts the tasks that are finished.
func outcomes(t *testing.T, sys *harness.System) func() int {
	t.Helper()
	var mu sync.Mutex
	finished := map[string]bool{}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- harness.Follow(ctx, sys.Brokers, []string{sys.Names().Outcomes()}, func(r *kgo.Record) {
			o, err := harness.ParseOutcome(r)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if o.Final && finished[o.Origin] {
				t.Errorf("%s was finished twice", o.Origin)
			}
			finished[o.Origin] = finished[o.Origin] || o.Final
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, f := range finished {
			if f {
				n++
			}
		}
		return n
	}
}
