package hop

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlySmallTransactionsInARowArePaced(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 0, 1: 0, 2: gathering, crowd - 1: gathering, crowd: 0, 5000: 0} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			Gather(t.Context(), n)
			if took := time.Since(begun); took != want {
				t.Errorf("after a transaction of %d: %s, want %s", n, took, want)
			}
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	begun := time.Now()
	Gather(ended, 2)
	if time.Since(begun) > time.Second {
		t.Error("it goes on after its context has ended")
	}
}
