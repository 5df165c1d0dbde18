package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"
)

// Each agent of a topic gets what its spec says: from where on, which events, of which types. It is decided when the agent
// is registered, before any dispatcher is there, and counts once, for however many of them.
func TestEachAgentGetsItsEventsAndTheRestIsCounted(t *testing.T) {
	needPython(t)
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic := sys.Prefix + "-in"
		if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(sys.AgentsDir(), "all"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys.AgentsDir(), "all", "all.py"), []byte("async def handle(message):\n    return message['content']\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		last := time.Time{}
		publish := func(from, to int, headers ...kgo.RecordHeader) {
			t.Helper()
			for i := from; i < to; i++ {
				r := &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, `{"n":%d}`, i), Headers: headers}
				if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
				last = r.Timestamp
			}
		}
		register := func(name string, spec map[string]any) {
			t.Helper()
			entry := map[string]any{"topic": topic, "name": name, "runtime": "python", "dir": "all", "callback": "all:handle"}
			for k, v := range spec {
				entry[k] = v
			}
			if err := sys.Register(t.Context(), entry); err != nil {
				t.Fatal(err)
			}
		}
		start(t, sys, "registry.r0")
		publish(0, 20)
		since := last.Add(2 * time.Millisecond)
		eventually(t, time.Minute, func() string {
			if time.Now().Before(since.Add(time.Millisecond)) {
				return "the clock stands"
			}
			return ""
		})
		register("all", nil)
		register("late", map[string]any{"start": "latest"})
		register("since", map[string]any{"start": since.Format(time.RFC3339Nano)})
		register("even", map[string]any{"filter": `data.n % 2 == 0`})
		register("typed", map[string]any{"accepts": []string{"order.*"}})
		register("rejecting", map[string]any{"capabilities": []string{"order.made"}, "on_incompatible": "reject"})
		register("skipping", map[string]any{"accepts": []string{"order.*"}, "on_incompatible": "skip"})
		register("slow", map[string]any{"rate": 1000, "filter": `!("reeve-type" in headers)`})
		publish(20, 30, kgo.RecordHeader{Key: "reeve-type", Value: []byte("order.made")})
		publish(30, 40, kgo.RecordHeader{Key: "reeve-type", Value: []byte("order.paid")})
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("no JSON")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		start(t, sys, "dispatcher.d0", "dispatcher.d1", "supervisor.s0")
		type figures struct {
			Received     int64 `json:"received"`
			Completed    int64 `json:"completed"`
			DeadLettered int64 `json:"dead_lettered"`
			Rejected     int64 `json:"rejected"`
			Filtered     int64 `json:"filtered"`
			Lag          int64 `json:"lag"`
		}
		stand := func(want map[string]figures) {
			t.Helper()
			for name, w := range want {
				eventually(t, time.Minute, func() string {
					var got figures
					if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/"+name+"/metrics", nil, &got); err != nil {
						return err.Error()
					}
					if got != w {
						return fmt.Sprintf("%s: %+v, not %+v", name, got, w)
					}
					return ""
				})
			}
		}
		stand(map[string]figures{
			"all":       {Received: 41, Completed: 41},
			"late":      {Received: 21, Completed: 21},
			"since":     {Received: 21, Completed: 21},
			"even":      {Received: 21, Completed: 20, DeadLettered: 1, Filtered: 20},
			"typed":     {Received: 41, Completed: 20, DeadLettered: 21},
			"rejecting": {Received: 41, Completed: 31, Rejected: 10},
			"skipping":  {Received: 20, Completed: 20, Filtered: 21},
			"slow":      {Received: 21, Completed: 21, Filtered: 20},
		})
		// Registered again, it goes on where it stands.
		register("late", map[string]any{"start": "latest", "version": "2.0.0"})
		publish(40, 50)
		register("since", map[string]any{"start": "latest"})
		stand(map[string]figures{"late": {Received: 31, Completed: 31}, "since": {Received: 31, Completed: 31}, "even": {Received: 26, Completed: 25, DeadLettered: 1, Filtered: 25}})
	})
}
