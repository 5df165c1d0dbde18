package status

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// records starts a broker with a status topic and reads n records that report has written.
func records(t *testing.T, n int, report func(o []kgo.Opt, r *Reporter)) []map[string]any {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topics.Names{}.Status()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	o := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	cl, err := kgo.NewClient(append(o, kgo.ConsumeTopics(topics.Names{}.Status()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	r := NewReporter(cl, topics.Names{}, "worker", "w0", slog.New(slog.DiscardHandler))
	report(o, r)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all []map[string]any
	for len(all) < n {
		for _, rec := range cl.PollFetches(ctx).Records() {
			var v map[string]any
			if err := json.Unmarshal(rec.Value, &v); err != nil {
				t.Fatal(err)
			}
			v["key"] = string(rec.Key)
			all = append(all, v)
		}
		if ctx.Err() != nil {
			t.Fatalf("%d records, not %d", len(all), n)
		}
	}
	return all
}

func TestRecordsSayWhoReportsAndOfWhat(t *testing.T) {
	all := records(t, 4, func(_ []kgo.Opt, r *Reporter) {
		r.Node([]AgentReport{{Topic: "orders", AgentName: "hello", State: ReportServing}}, true)
		r.Agent(AgentReport{Topic: "orders", AgentName: "hello", State: ReportIdle})
		r.Alert(Alert{Topic: "orders", AgentName: "hello", Kind: "records_lost", Severity: "critical", Message: "gone"})
		r.Alert(Alert{Kind: "k", Resolved: true})
	})
	for i, want := range []map[string]any{
		{"key": "worker/w0", "event": EventNode, "service": "worker", "node": "w0", "pid": float64(os.Getpid()), "leaving": true},
		{"key": "orders/hello", "event": EventAgent, "service": "worker", "node": "w0", "state": ReportIdle},
		{"key": "orders/hello", "event": EventAlert, "subject": "orders/hello", "kind": "records_lost", "message": "gone"},
		{"key": "worker/w0", "event": EventAlert, "subject": "worker/w0", "resolved": true},
	} {
		for field, value := range want {
			if all[i][field] != value {
				t.Errorf("record %d: %s is %v, not %v", i, field, all[i][field], value)
			}
		}
	}
}

func TestWhoWasReplacedNamesTheNewer(t *testing.T) {
	records(t, 1, func(o []kgo.Opt, r *Reporter) {
		newer, err := json.Marshal(Node{Event: EventNode, Service: "worker", Node: "w0", Host: "there", PID: 4711, StartedAt: Seconds(time.Now().Add(time.Second)), Timestamp: Seconds(time.Now())})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.client.ProduceSync(t.Context(), &kgo.Record{Topic: topics.Names{}.Status(), Value: newer}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		cause := errors.New("replaced")
		if err := r.Replaced(t.Context(), o, cause); !errors.Is(err, cause) || !strings.Contains(err.Error(), "the process 4711 on host there") || !strings.Contains(err.Error(), "each worker a REEVE_NODE") {
			t.Errorf("%v", err)
		}
	})
}

func TestWhatCantBeWrittenIsCountedAndWaitedForByNobody(t *testing.T) {
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"), kgo.MaxBufferedRecords(1))
	if err != nil {
		t.Fatal(err)
	}
	r := NewReporter(cl, topics.Names{}, "worker", "w0", slog.New(slog.DiscardHandler))
	for range 3 {
		r.Node(nil, false)
	}
	if err := cl.AbortBufferedRecords(t.Context()); err != nil { // it waits until their failure was told
		t.Error(err)
	}
	cl.Close()
	if r.Dropped() != 3 {
		t.Errorf("%d dropped", r.Dropped())
	}
}

func TestAnAlertIsRepeatedUntilItIsTakenBack(t *testing.T) {
	a := Alert{Topic: "orders", AgentName: "hello", Kind: KindQueueHeld, Severity: "warning", Message: "held"}
	all := records(t, 4, func(_ []kgo.Opt, r *Reporter) {
		now := time.Now()
		r.Alert(a)
		r.Alert(a)                                             // changes nothing
		r.Alert(Alert{Kind: KindRecordsLost, Message: "gone"}) // has happened, once
		r.repeat(now.Add(AlertInterval / 2))                   // not yet
		r.repeat(now.Add(AlertInterval + time.Second))         // again
		r.repeat(now.Add(AlertInterval + time.Second))         // it was told this moment
		r.Alert(Alert{Topic: "orders", AgentName: "hello", Kind: KindQueueHeld, Message: "over", Resolved: true})
		if err := r.client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.repeat(now.Add(time.Hour)) // nothing stands
	})
	var said []string
	for _, r := range all {
		said = append(said, r["message"].(string))
	}
	if got := strings.Join(said, " "); got != "held gone held over" && got != "gone held held over" {
		t.Errorf("told: %s", got)
	}
	for _, r := range all {
		if r["message"] == "held" && (r["since"] != all[0]["since"] && all[0]["message"] == "held" || r["node"] != "w0" || r["service"] != "worker") {
			t.Errorf("repeated as %v", r)
		}
	}
}

func TestAnAlertThatKafkaRefusedIsToldWithTheNextHeartbeat(t *testing.T) {
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r := NewReporter(cl, topics.Names{}, "worker", "w0", slog.New(slog.DiscardHandler))
	sent := func(after func()) int64 {
		t.Helper()
		before := r.Dropped()
		after()
		if err := cl.AbortBufferedRecords(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r.Dropped() - before
	}
	for _, resolved := range []bool{false, true} {
		if n := sent(func() { r.Alert(Alert{Kind: KindOutage, Message: "m", Resolved: resolved}) }); n != 1 {
			t.Fatalf("%d sent", n)
		}
		for range 2 {
			if n := sent(func() { r.Node(nil, false) }); n != 2 {
				t.Errorf("resolved %t: %d records with a heartbeat, not 2", resolved, n)
			}
		}
	}
}
