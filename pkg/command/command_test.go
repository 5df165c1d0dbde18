package command

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func cancelOf(id string, at time.Time, life time.Duration) Command {
	return Command{ID: id, Verb: Cancel, Topic: "orders", Agent: "bill", Task: "orders/0/17", Actor: "ann", At: at.UTC().Truncate(time.Millisecond),
		Expires: at.Add(life).UTC().Truncate(time.Millisecond)}
}

func TestACommandIsReadAsItWasWritten(t *testing.T) {
	c := cancelOf("1", time.Now(), time.Minute)
	c.Round, c.Reason = 2, "no longer wanted"
	r, err := c.Record(topics.Names{})
	if err != nil || r.Topic != "reeve.commands" || string(r.Key) != "orders/bill" {
		t.Fatalf("%+v, %v", r, err)
	}
	if got, err := Decode(r); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestACommandAboutDeadLettersSaysWhichOnce(t *testing.T) {
	ends := map[int32]int64{0: 7}
	for _, c := range []struct {
		task string
		dead *Dead
		says string
	}{
		{"", &Dead{All: true, Ends: ends}, ""},
		{"", &Dead{Fingerprint: "f", Ends: ends, Force: true}, ""},
		{"orders/0/1", &Dead{Ends: ends}, ""},
		{"orders/0/1", &Dead{All: true, Ends: ends}, "in 2 ways"},
		{"", &Dead{Ends: ends}, "in 0 ways"},
		{"", &Dead{All: true}, "had come by then"},
		{"orders/0/1", nil, "had come by then"},
	} {
		for _, verb := range []Verb{Redrive, Purge} {
			x := cancelOf("1", time.Now(), time.Minute)
			x.Verb, x.Task, x.Dead = verb, c.task, c.dead
			r, err := x.Record(topics.Names{})
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%+v: %v, want %q", c, err, c.says)
				}
				continue
			}
			if err != nil {
				t.Errorf("%+v: %v", c, err)
				continue
			}
			if got, err := Decode(r); err != nil || !maps.Equal(got.Dead.Ends, ends) || got.Dead.Force != c.dead.Force {
				t.Errorf("%+v, %v", got, err)
			}
		}
	}
}

func TestAnOrderAboutWebhooksNamesNoAgent(t *testing.T) {
	ends := map[int32]int64{0: 7}
	for _, c := range []struct {
		verb  Verb
		topic string
		task  string
		dead  *Dead
		says  string
	}{
		{Redrive, "", "", &Dead{All: true, Ends: ends}, ""},
		{Redrive, "", "", &Dead{Endpoint: "https://h:443", Ends: ends, Force: true}, ""},
		{Purge, "", "", &Dead{Webhook: "msg_1", Ends: ends}, ""},
		{Done, "", "", nil, ""},
		{CancelOrder, "", "", nil, ""},
		{Cancel, "", "orders/0/1", nil, "none for webhooks"},
		{Redrive, "", "orders/0/1", &Dead{Ends: ends}, "in 0 ways of webhook, endpoint and all"},
		{Redrive, "", "", &Dead{Fingerprint: "f", All: true, Ends: ends}, "nothing else"},
		{Redrive, "", "", &Dead{Webhook: "msg_1", All: true, Ends: ends}, "in 2 ways"},
		{Redrive, "orders", "", &Dead{Webhook: "msg_1", Ends: ends}, "in 0 ways of task"},
		{Redrive, "orders", "", &Dead{All: true, Endpoint: "https://h:443", Ends: ends}, "nothing else"},
	} {
		x := cancelOf("1", time.Now(), time.Minute)
		x.Verb, x.Topic, x.Agent, x.Task, x.Dead = c.verb, c.topic, Webhooks, c.task, c.dead
		if c.verb == CancelOrder {
			x.Order = "7"
		}
		r, err := x.Record(topics.Names{})
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v: %v, want %q", c, err, c.says)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		got, err := Decode(r)
		if err != nil || !got.OfWebhooks() || got.OfOne() != (c.dead != nil && c.dead.Webhook != "") {
			t.Errorf("%+v, %v", got, err)
		}
	}
	x := cancelOf("1", time.Now(), time.Minute)
	x.Verb, x.Topic, x.Dead = Redrive, "", &Dead{All: true, Ends: ends}
	if err := x.Check(); err == nil || !strings.Contains(err.Error(), "names no agent") {
		t.Errorf("an agent of no topic: %v", err)
	}
}

func TestWhatIsNoCommandIsNotRead(t *testing.T) {
	const whole = `{"id":"1","verb":"cancel","topic":"orders","agent":"bill","actor":"ann","at":"2026-01-01T00:00:00Z","expires":"2026-01-01T01:00:00Z"`
	for value, says := range map[string]string{
		whole + "}":                 "",
		whole + `,"only_of":"ann"}`: "unknown field",
		whole + "} {}":              "something follows",
		"\xff":                      "invalid character",
		"":                          "EOF",
		strings.Replace(whole, "cancel", "explode", 1) + "}":         `"explode" is none of this version`,
		strings.Replace(whole, `"1"`, `""`, 1) + "}":                 "no id",
		strings.Replace(whole, "bill", "", 1) + "}":                  "names no agent",
		strings.Replace(whole, "bill", "other", 1) + "}":             "its key",
		strings.Replace(whole, "T01", "T23", 1) + "}":                "more than 12h",
		`{"id":"1","verb":"cancel","topic":"orders","agent":"bill"}`: "from when to when",
	} {
		_, err := Decode(&kgo.Record{Key: []byte("orders/bill"), Value: []byte(value)})
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v, want %q", value, err, says)
		}
	}
	if _, err := cancelOf("1", time.Now(), 13*time.Hour).Record(topics.Names{}); err == nil {
		t.Error("a command that outlives its readers' memory was written")
	}
}

func cluster(t *testing.T) []kgo.Opt {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
}

func producer(t *testing.T, opts []kgo.Opt, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(append([]kgo.Opt{}, opts...), more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func makeTopic(t *testing.T, cl *kgo.Client) {
	t.Helper()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, topics.Names{}.Commands()); err != nil {
		t.Fatal(err)
	}
}

func issue(t *testing.T, cl *kgo.Client, cs ...Command) {
	t.Helper()
	for _, c := range cs {
		r, err := c.Record(topics.Names{})
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

type heard chan Command

func (h heard) next(t *testing.T) Command {
	t.Helper()
	select {
	case c := <-h:
		return c
	case <-time.After(time.Minute):
		t.Fatal("the handler heard nothing")
		return Command{}
	}
}

func follow(t *testing.T, opts []kgo.Opt) (*Follower, heard) {
	t.Helper()
	got := make(heard, 100)
	f := NewFollower(Config{Opts: opts, Handlers: map[Verb]Handler{Cancel: func(c Command) { got <- c }}, Logger: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return f, got
}

func TestAFollowerGetsWhatCountsYetOnceAndNothingStopsIt(t *testing.T) {
	opts := cluster(t)
	cl := producer(t, opts)
	makeTopic(t, cl)
	now := time.Now()
	issue(t, cl, cancelOf("expired", now.Add(-time.Hour), time.Minute), cancelOf("before", now, time.Hour), cancelOf("before", now, time.Hour))
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topics.Names{}.Commands(), Key: []byte("k"), Value: []byte("{")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	other := cancelOf("other verb", now, time.Hour)
	other.Verb = Retry
	issue(t, cl, other)
	_, got := follow(t, opts)
	if c := got.next(t); c.ID != "before" {
		t.Errorf("first came %s", c.ID)
	}
	issue(t, cl, cancelOf("before", now, time.Hour), cancelOf("after", now, time.Hour))
	if c := got.next(t); c.ID != "after" {
		t.Errorf("then came %s", c.ID)
	}
}

func TestAFollowerWaitsForTheTopic(t *testing.T) {
	opts := cluster(t)
	_, got := follow(t, opts)
	cl := producer(t, opts)
	makeTopic(t, cl)
	issue(t, cl, cancelOf("1", time.Now(), time.Hour))
	if c := got.next(t); c.ID != "1" {
		t.Errorf("%+v", c)
	}
}

func TestWhatWasFinishedInATransactionIsNotGivenAfterARestart(t *testing.T) {
	opts := cluster(t)
	cl := producer(t, opts)
	makeTopic(t, cl)
	now := time.Now()
	done, open := cancelOf("done", now, time.Hour), cancelOf("open", now, time.Hour)
	issue(t, cl, done, open)
	tx := producer(t, opts, kgo.TransactionalID("t"))
	finish := func(c Command, how kgo.TransactionEndTry) {
		t.Helper()
		r, err := c.Finished(topics.Names{}, "dispatcher/n1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := tx.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := tx.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	finish(done, kgo.TryCommit)
	finish(open, kgo.TryAbort)
	f, got := follow(t, opts)
	if c := got.next(t); c.ID != "open" {
		t.Errorf("came %s", c.ID)
	}
	if !f.Finished("done") || f.Finished("open") {
		t.Error("what is finished isn't known")
	}
	finish(open, kgo.TryCommit)
	if err := f.CatchUp(t.Context(), kadm.NewClient(cl)); err != nil || !f.Finished("open") {
		t.Errorf("after catching up it isn't known that it is finished: %v", err)
	}
}

func TestACommandThatIsIssuedAgainBeforeItExpiresIsGivenOnceMore(t *testing.T) {
	opts := cluster(t)
	cl := producer(t, opts)
	makeTopic(t, cl)
	now := time.Now()
	issue(t, cl, cancelOf("soon", now, Renewal/2), cancelOf("later", now, 2*Renewal), cancelOf("done", now, Renewal/2))
	_, got := follow(t, opts)
	for _, id := range []string{"soon", "later", "done"} {
		if c := got.next(t); c.ID != id {
			t.Fatalf("%s came, not %s", c.ID, id)
		}
	}
	finished, err := cancelOf("done", now, time.Minute).Finished(topics.Names{}, "worker/w0", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), finished).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"later", "done", "soon", "soon"} {
		issue(t, cl, cancelOf(id, now, MaxLife))
	}
	issue(t, cl, cancelOf("last", now, time.Hour))
	for _, id := range []string{"soon", "last"} {
		if c := got.next(t); c.ID != id || id == "soon" && c.Expires.Before(now.Add(MaxLife-time.Second)) {
			t.Errorf("%+v came, not %s", c, id)
		}
	}
}
