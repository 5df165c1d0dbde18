package worker

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// unrun has a broker with some topics.
func unrun(t *testing.T, names ...string) (*Unrun, *kfake.Cluster) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, names...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return NewUnrun(UnrunConfig{Names: topics.Names{}, Client: cl}), c
}

// ended are the replies of n cancelled tasks that ask for one.
func ended(t *testing.T, u *Unrun, n int, replyTo func(i int) string) (told []*kgo.Record) {
	t.Helper()
	endings := make([]Ending, n)
	for i := range endings {
		endings[i] = Ending{asking(i, replyTo(i)), cancelled()}
	}
	return slices.Concat(u.Ended(t.Context(), endings...)...)
}

func asking(i int, replyTo string) *kgo.Record {
	origin := task.Origin{Topic: "orders", Offset: int64(i)}
	return &kgo.Record{Offset: int64(i), Value: []byte(strconv.Itoa(i)), Headers: []kgo.RecordHeader{{Key: task.HeaderOrigin, Value: origin.AppendHeader(nil)},
		{Key: task.HeaderEvent, Value: fmt.Appendf(nil, "17 e%d", i)}, {Key: task.HeaderReplyTo, Value: []byte(replyTo)}}}
}

func cancelled() *kgo.Record {
	return &kgo.Record{Topic: topics.Names{}.Outcomes(), Headers: []kgo.RecordHeader{{Key: task.HeaderAgent, Value: []byte("orders/biller")},
		{Key: task.HeaderOutcome, Value: []byte(task.Cancelled)}}}
}

// refuse refuses records for a reason.
func refuse(told []*kgo.Record, reason error) error {
	refused := &hop.RecordsError{Refused: map[int]error{}}
	for i := range told {
		refused.Refused[i] = reason
	}
	return refused
}

// Whatever a transaction's try has taught the next one knows, however much it is: else it would be refused for ever.
func TestATransactionsNextTryKnowsAllThatWasRefused(t *testing.T) {
	const n = 5000
	for name, tt := range map[string]struct {
		replyTo func(int) string
		reason  error
	}{
		"replies for what they are": {func(int) string { return "answers" }, kerr.InvalidRecord},
		"topics":                    {func(i int) string { return "answers-" + strconv.Itoa(i) }, kerr.TopicAuthorizationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			names := []string{"answers"}
			for i := range n {
				names = append(names, tt.replyTo(i))
			}
			slices.Sort(names)
			u, _ := unrun(t, slices.Compact(names)...)
			for _, topic := range names {
				u.topics.learn(topic, untroubled)
			}
			told := ended(t, u, n, tt.replyTo)
			if len(told) != n {
				t.Fatalf("%d replies of %d", len(told), n)
			}
			if left := u.NotCommitted(t.Context(), told, 0, refuse(told, tt.reason)); len(left) > 0 {
				t.Errorf("%d are left to resolve", len(left))
			}
			if again := ended(t, u, n, tt.replyTo); len(again) > 0 {
				t.Errorf("%d replies are tried once more", len(again))
			}
		})
	}
}

// What is remembered of single replies and topics takes no more memory than its time.
func TestWhatIsRememberedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m recent[int, int]
		for i := range 100_000 {
			m.put(i, i, time.Now(), time.Second)
			<-time.After(time.Millisecond)
		}
		if n := len(m.known); n > 2100 {
			t.Errorf("%d are known", n)
		}
		if v, ok := m.get(99_999, time.Now()); !ok || v != 99_999 {
			t.Error("the last one is forgotten")
		}
		if _, ok := m.get(98_998, time.Now()); ok {
			t.Error("one whose time is over is known")
		}
	})
}

// A broker that hangs costs a transaction's looks their limit once, however many topics there are, and the next nothing for
// a moment.
func TestABrokerThatHangsCostsTheLooksOfATransactionOnce(t *testing.T) {
	t.Parallel()
	u, c := unrun(t)
	topic := func(i int) string { return "answers-" + strconv.Itoa(i) }
	hang := make(chan struct{})
	defer close(hang)
	c.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		c.SleepControl(func() { <-hang })
		return nil, nil, false
	})
	began := time.Now()
	for range 2 {
		if n := len(ended(t, u, 20, topic)); n != 20 {
			t.Errorf("%d replies are made, of topics that nothing is known of", n)
		}
	}
	if took := time.Since(began); took < lookLimit/2 || took >= lookLimit+failedTTL {
		t.Errorf("it took %v", took)
	}
}

// Brokers are asked for all topics of a transaction at once, and then not for a while.
func TestTheTopicsOfATransactionAreAskedForTogether(t *testing.T) {
	for name, create := range map[string]bool{"made": true, "missing": false} {
		t.Run(name, func(t *testing.T) {
			u, c := unrun(t, "answers-0")
			u.cfg.CreateReplyTopics = create
			var looks, makes atomic.Int32
			c.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				if ts := req.(*kmsg.MetadataRequest).Topics; len(ts) > 0 {
					looks.Add(1)
				}
				return nil, nil, false
			})
			c.ControlKey(int16(kmsg.CreateTopics), func(kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				makes.Add(1)
				return nil, nil, false
			})
			want, made := 1, int32(0)
			if create {
				want, made = 30, 1
			}
			for range 2 {
				if n := len(ended(t, u, 30, func(i int) string { return "answers-" + strconv.Itoa(i) })); n != want {
					t.Errorf("%d replies, want %d", n, want)
				}
			}
			if l, m := looks.Load(), makes.Load(); l != 1 || m != made {
				t.Errorf("%d looks, topics are made %d times", l, m)
			}
		})
	}
}
