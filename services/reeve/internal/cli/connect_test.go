package cli

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slow answers after a time.
type slow time.Duration

func (s slow) RoundTrip(*http.Request) (*http.Response, error) {
	<-time.After(time.Duration(s))
	return &http.Response{Header: http.Header{}}, nil
}

func TestALateAnswerIsToldOfOnce(t *testing.T) {
	for took, want := range map[time.Duration]int{time.Second: 0, 2 * lateAfter: 1} {
		synctest.Test(t, func(t *testing.T) {
			told := 0
			l := &listener{next: slow(took), version: new(atomic.Pointer[string]), late: func() { told++ }}
			for range 2 {
				if _, err := l.RoundTrip(nil); err != nil {
					t.Fatal(err)
				}
			}
			if told != want {
				t.Errorf("told %d times of answers after %s, want %d", told, took, want)
			}
		})
	}
}
