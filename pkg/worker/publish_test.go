package worker_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// publisher publishes each task's value to a topic, twice, and says what becomes of the attempt.
func publisher(topic func(value string) string, end func(value string, number int) worker.Result) func(context.Context, *worker.Attempt) worker.Result {
	return func(_ context.Context, a *worker.Attempt) worker.Result {
		value := string(a.Record.Value)
		r := end(value, a.Number)
		for range 2 {
			r.Publish = append(r.Publish, &kgo.Record{Topic: topic(value), Key: a.Record.Key, Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "mine", Value: []byte("kept")}}})
		}
		return r
	}
}

func TestWhatAnAttemptPublishesIsPartOfItsTransaction(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create("invoices", 3)
		s.publish(0, 20)
		s.engine("a", runner(t, 4, publisher(func(string) string { return "invoices" }, func(value string, _ int) worker.Result {
			if value == "7" {
				return worker.Result{Outcome: task.Failed, Class: task.ClassPermanent, Message: "not seven"}
			}
			return worker.Result{Outcome: task.Completed}
		})))
		s.outcomes(20)
		seen := map[string]int{}
		for _, r := range s.read("invoices", func(rs []*kgo.Record) bool { return len(rs) >= 38 }) {
			seen[string(r.Value)]++
			if header(r)["mine"] != "kept" {
				t.Errorf("the headers of %s are gone", r.Value)
			}
		}
		for i := range 20 {
			want := 2
			if i == 7 {
				want = 0 // its attempt failed
			}
			if n := seen[strconv.Itoa(i)]; n != want {
				t.Errorf("task %d published %d records, want %d", i, n, want)
			}
		}
	})
}

func TestAPublicationThatIsRefusedFailsItsAttemptAlone(t *testing.T) {
	large := strings.Repeat("x", 2<<20)
	for name, tt := range map[string]struct {
		topic, value string
		class        task.Class
	}{
		"no such topic": {"nowhere", "3", task.ClassDependency},
		"no legal name": {"not a topic", "3", task.ClassDependency}, // for a broker there is none of that name
		"too large":     {"invoices", large, task.ClassResultTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStand(t)
				s.spec.Config.MaxRetries = 0
				s.create("invoices", 1)
				s.publish(0, 10)
				s.engine("a", runner(t, 4, func(_ context.Context, a *worker.Attempt) worker.Result {
					r := worker.Result{Outcome: task.Completed, Publish: []*kgo.Record{{Topic: "invoices", Value: a.Record.Value}}}
					if string(a.Record.Value) == "3" {
						r.Publish[0].Topic, r.Publish[0].Value = tt.topic, []byte(tt.value)
					}
					return r
				}))
				failed := 0
				for _, r := range s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= 10 }) {
					h := header(r)
					if h[task.HeaderOutcome] == string(task.Completed) {
						continue
					}
					failed++
					if h[task.HeaderSettled] != string(task.SettledDLQ) || h[task.HeaderErrorClass] != string(tt.class) || !strings.Contains(h[task.HeaderErrorMessage], tt.topic) {
						t.Errorf("%v", h)
					}
				}
				if failed != 1 {
					t.Errorf("%d attempts failed", failed)
				}
				if n := len(s.read("invoices", func(rs []*kgo.Record) bool { return len(rs) >= 9 })); n != 9 {
					t.Errorf("%d records were published, want 9", n)
				}
				if dead := s.read(s.names.DLQ("orders", "biller"), func(rs []*kgo.Record) bool { return len(rs) > 0 }); string(dead[0].Value) != "3" {
					t.Errorf("the dead letter is %s", dead[0].Value)
				}
			})
		})
	}
}

func TestAReplyAndAPublicationToOneTopicAreToldApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.MaxRetries = 0
		s.publish(0, 1, kgo.RecordHeader{Key: task.HeaderReplyTo, Value: []byte("nowhere")})
		s.engine("a", runner(t, 4, publisher(func(string) string { return "nowhere" }, func(string, int) worker.Result { return worker.Result{Outcome: task.Completed} })))
		if o := s.outcomes(1)[0]; o.settled != string(task.SettledDLQ) {
			t.Errorf("%+v", o)
		}
	})
}

// What has finished when a stop's patience ends fills many transactions.
func TestAStopSettlesAllThatHasFinished(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const attempts, each = 16, 5000
		s := newStand(t)
		s.create("invoices", 1)
		s.publish(0, attempts)
		s.spec.Config.Ordering = spec.OrderingNone
		begun := make(chan struct{}, attempts)
		e, _ := s.engine("a", runner(t, attempts, func(ctx context.Context, a *worker.Attempt) worker.Result {
			begun <- struct{}{}
			<-ctx.Done()
			r := worker.Result{Outcome: task.Completed}
			for range each {
				r.Publish = append(r.Publish, &kgo.Record{Topic: "invoices", Key: a.Record.Value})
			}
			return r
		}))
		for range attempts {
			<-begun
		}
		now, cancel := context.WithCancel(t.Context())
		cancel()
		e.Stop(now)
		if n := len(s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= attempts })); n != attempts {
			t.Errorf("%d outcomes", n)
		}
	})
}

// A topic that is deleted and made again stands: what goes there fails nothing.
func TestATopicThatIsMadeAgainFailsNoAttempt(t *testing.T) {
	for name, answers := range map[string]bool{"published": false, "a reply": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStand(t)
				s.spec.Config.MaxRetries = 0
				s.create("invoices", 1)
				run, headers := ok, replyTo("invoices")
				if !answers {
					run, headers = publisher(func(string) string { return "invoices" }, func(string, int) worker.Result { return worker.Result{Outcome: task.Completed} }), nil
				}
				s.engine("a", runner(t, 4, run))
				settle := func(from int) {
					for i := from; i < from+4; i++ { // by each of the pool's producers
						s.publish(i, 1, headers...)
						s.outcomes(i + 1)
					}
				}
				settle(0)
				if _, err := s.adm.DeleteTopics(t.Context(), "invoices"); err != nil {
					t.Fatal(err)
				}
				s.create("invoices", 1)
				settle(4)
				for _, r := range s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= 8 }) {
					if h := header(r); h[task.HeaderOutcome] != string(task.Completed) || h[task.HeaderReply] != "" {
						t.Errorf("%s: %v", r.Key, h)
					}
				}
			})
		})
	}
}
