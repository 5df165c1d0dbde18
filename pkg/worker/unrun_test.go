package worker

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

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
	for i := range n {
		told = append(told, u.Ended(t.Context(), asking(i, replyTo(i)), cancelled(i))...)
	}
	return told
}

func asking(i int, replyTo string) *kgo.Record {
	origin := task.Origin{Topic: "orders", Offset: int64(i)}
	return &kgo.Record{Offset: int64(i), Value: []byte(strconv.Itoa(i)), Headers: []kgo.RecordHeader{{Key: task.HeaderOrigin, Value: origin.AppendHeader(nil)},
		{Key: task.HeaderEvent, Value: fmt.Appendf(nil, "17 e%d", i)}, {Key: task.HeaderReplyTo, Value: []byte(replyTo)}}}
}

func cancelled(int) *kgo.Record {
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
