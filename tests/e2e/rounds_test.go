package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
)

// A task in a further round is a task like any other: it is seen at once, it counts, it is cancelled, and who waits for it waits
// for the end of that round.
func TestAFurtherRoundIsATaskLikeAnyOther(t *testing.T) {
	needsPython(t)
	onEachKafka(t, furtherRounds)
}

func furtherRounds(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	services := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerSteered(t, sys, topic, "a", func(_, config, _ map[string]any) { config["dlq_enabled"], config["max_retries"] = true, 0 })
	ask := func(p published, verb, want string) {
		t.Helper()
		if got := steer(t, sys, p, "a", verb); got != want {
			t.Errorf("%s: %s, want %s", verb, got, want)
		}
	}

	p := publishContent(t, sys, topic, map[string]any{"seconds": 50}, "")
	p.await(t, sys, "a", "running")
	ask(p, "cancel", "done")
	ask(p, "retry", "done")
	inRound(t, sys, p, 1)
	ask(p, "cancel", "done") // and not: it was before
	if s := taskOf(t, sys, p, "a", ""); s.Status != "cancelled" || s.Redrives != 1 || s.Attempts > 1 {
		t.Errorf("cancelled in its second round: %+v", s)
	}

	p = publishContent(t, sys, topic, map[string]any{"seconds": 50, "fails_once": filepath.Join(t.TempDir(), "dead")}, "")
	p.await(t, sys, "a", "dead_lettered")
	ask(p, "retry", "done")
	inRound(t, sys, p, 1)
	p.await(t, sys, "a", "running")
	awaitFigures(t, sys, topic, map[string]float64{"received": 2, "cancelled": 1, "dead_lettered": 0, "waiting": 0, "running": 1})
	ask(p, "cancel", "done")
	if s := taskOf(t, sys, p, "a", ""); s.Status != "cancelled" || s.Redrives != 1 || s.Attempts != 1 {
		t.Errorf("cancelled after its redrive: %+v", s)
	}

	p = publishContent(t, sys, topic, map[string]any{"seconds": 2, "fails_once": filepath.Join(t.TempDir(), "again")}, "")
	p.await(t, sys, "a", "dead_lettered")
	ask(p, "retry", "done")
	if s := taskOf(t, sys, p, "a", "?wait=15s"); s.Status != "completed" || s.Redrives != 1 || len(s.History) != 2 {
		t.Errorf("waited for: %+v", s)
	}
	awaitFigures(t, sys, topic, map[string]float64{"received": 3, "cancelled": 2, "completed": 1, "dead_lettered": 0, "waiting": 0, "running": 0})
	stop(t, services...)
}

// inRound checks that a task is seen at work in a round that has just been opened.
func inRound(t *testing.T, sys *harness.System, p published, round int) {
	t.Helper()
	if s := taskOf(t, sys, p, "a", ""); s.Status != "queued" && s.Status != "running" || s.Redrives != round {
		t.Errorf("in its further round: %+v", s)
	}
}

func awaitFigures(t *testing.T, sys *harness.System, topic string, want map[string]float64) {
	t.Helper()
	eventually(t, time.Minute, func() string {
		var m map[string]any
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/a/metrics", nil, &m); err != nil {
			return err.Error()
		}
		for name, n := range want {
			if m[name] != n {
				return fmt.Sprintf("%s is %v, not %v", name, m[name], n)
			}
		}
		return ""
	})
}
