package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"
)

// Two versions of an agent stand side by side under two names: each gets every event once, whichever of them is paused,
// resumed or paused again meanwhile, and the figures tell the versions apart.
func TestTwoVersionsUnderTwoNamesSwitchAndRollBack(t *testing.T) {
	needsPython(t)
	onEachKafka(t, blueAndGreen)
}

func blueAndGreen(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 2, nil); err != nil {
		t.Fatal(err)
	}
	services := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	version := func(v string) func(entry, config, process map[string]any) {
		return func(entry, config, _ map[string]any) { entry["version"], config["concurrency"] = v, 4 }
	}
	registerSteered(t, sys, topic, "blue", version("1.0.0"))
	registerSteered(t, sys, topic, "green", version("2.0.0"))
	finals := finalsOfEach(t, sys)
	n := 0
	publish := func(more int) {
		t.Helper()
		for range more {
			publishContent(t, sys, topic, map[string]any{"n": n, "seconds": 0.02}, "")
			n++
		}
	}
	move := func(name, verb string) {
		t.Helper()
		if err := sys.Call(t.Context(), http.MethodPost, "/v1/agents/"+topic+"/"+name+"/"+verb, map[string]any{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	publish(30) // both run
	move("blue", "unsubscribe")
	publish(30) // switched to green, in the middle of its work
	move("blue", "resume")
	move("green", "unsubscribe")
	publish(30) // rolled back to blue
	move("green", "resume")
	publish(10)
	completed := func(name string) map[string]float64 {
		t.Helper()
		var m struct {
			Received  float64 `json:"received"`
			ByVersion map[string]struct {
				Completed float64 `json:"completed"`
			} `json:"by_version"`
		}
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/"+name+"/metrics", nil, &m); err != nil {
			t.Fatal(err)
		}
		out := map[string]float64{"received": m.Received}
		for v, c := range m.ByVersion {
			out[v] = c.Completed
		}
		return out
	}
	for name, v := range map[string]string{"blue": "1.0.0", "green": "2.0.0"} {
		eventually(t, 60*time.Second, func() string {
			if got := completed(name); len(got) != 2 || got["received"] != float64(n) || got[v] != float64(n) {
				return fmt.Sprintf("%s has %v of %d", name, got, n)
			}
			return ""
		})
	}
	// One of them gets a newer version in its place, and counts go on beside the old ones.
	registerSteered(t, sys, topic, "green", version("2.1.0"))
	publish(10)
	eventually(t, 60*time.Second, func() string {
		if got := completed("green"); got["2.0.0"]+got["2.1.0"] != float64(n) || got["2.1.0"] == 0 {
			return fmt.Sprintf("green has %v of %d", got, n)
		}
		return ""
	})
	eventually(t, 60*time.Second, func() string {
		ended, all := finals()
		for id, times := range ended {
			if times != 1 {
				t.Fatalf("%s has ended %d times", id, times)
			}
		}
		if all != 2*n {
			return fmt.Sprintf("%d tasks have an end, want %d", all, 2*n)
		}
		return ""
	})
	eventually(t, time.Minute, func() string { // the registry reads the outcomes by itself
		lines := scrape(t, sys)
		for _, want := range []string{`agent="blue",topic="` + topic + `",version="1.0.0"} ` + fmt.Sprint(n), `agent="green",topic="` + topic + `",version="2.0.0"} `} {
			if !strings.Contains(lines, "reeve_tasks_completed_total{"+want) {
				return "Prometheus doesn't tell " + want
			}
		}
		return ""
	})
	stop(t, services...)
}

// finalsOfEach counts how often each task of each agent has ended, and how many tasks have.
func finalsOfEach(t *testing.T, sys *harness.System) func() (map[string]int, int) {
	t.Helper()
	var mu sync.Mutex
	ended := map[string]int{}
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
			if o.Final {
				ended[o.Agent+" "+o.Origin]++
			}
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func() (map[string]int, int) {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(ended), len(ended)
	}
}

// scrape reads the registry's metrics.
func scrape(t *testing.T, sys *harness.System) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sys.URL+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
