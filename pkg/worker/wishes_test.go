package worker

import (
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

// A wish is forgotten soon after it has expired, whether or not another one comes; and until the first may have expired
// nobody looks through them.
func TestWishesAreForgottenWhenTheyExpire(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	of := func(i int, expires time.Duration) *Cancellation {
		return &Cancellation{Origin: task.Origin{Topic: "orders", Offset: int64(i)}, Expires: now.Add(expires)}
	}
	var b byTask[*Cancellation]
	for i := range 100 {
		b.put(of(i, time.Duration(60+i)*time.Minute), now)
	}
	first := now.Add(time.Hour)
	if b.look != first {
		t.Errorf("they are looked at at %v, the first expires at %v", b.look, first)
	}
	for i := range 100 {
		b.prune(first.Add(time.Duration(i)*time.Minute + time.Second))
		if want := 99 - i; len(b.all) != want {
			t.Fatalf("%d minutes later there are %d, want %d", i, len(b.all), want)
		}
	}
	b.put(of(1, time.Millisecond), now)
	if b.look != now.Add(lookPause) {
		t.Errorf("one that expires at once makes all be looked at after %v", b.look.Sub(now))
	}
	latest := of(1, time.Hour)
	b.put(latest, now)
	b.drop(of(1, 0))
	if len(b.all) != 1 {
		t.Error("a wish went with an earlier one for the same task")
	}
	if b.drop(latest); b.any() {
		t.Error("a wish that came true is still there")
	}
}
