package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// With the rights that `reeve acls` prints, dead letters are redriven and purged. Where an agent's dead-letter topic can't be
// written, that agent's dead letters wait and an alert says what to do, the one beside it goes on; once the right is there, it
// goes on by itself.
func TestDeadLettersOnASecuredKafka(t *testing.T) {
	t.Parallel()
	s := onSecured(t)
	m := &mortal{t: t, sys: s.System, topic: s.topic}
	const entry = "  - {topic: %s, name: %s, runtime: command, dir: mortal, command: [python3, adapter.py]}\n"
	yaml := "agents:\n" + fmt.Sprintf(entry, s.topic, "mortal") + fmt.Sprintf(entry, s.topic, "stock")
	if err := os.WriteFile(s.file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.admin.CreateTopic(t.Context(), 1, 1, nil, s.topic); err != nil {
		t.Fatal(err)
	}
	s.apply(s.acls(), "org.apache.kafka.tools.AclCommand")
	s.apply(s.script("topics", "-f", s.file), "org.apache.kafka.tools.TopicCommand")
	start(t, s.System, "registry.r0", "dispatcher.d0", "supervisor.s0")
	m.register()
	beside := map[string]any{"topic": s.topic, "name": "stock", "runtime": "command", "dir": "mortal", "command": []string{"python3", "adapter.py"}}
	if err := s.Register(t.Context(), beside); err != nil {
		t.Fatal(err)
	}
	m.mend("well")

	s.kinds("redriven", "redriven", "purged", "well")
	m.await(map[string]float64{"received": 4, "dead_lettered": 3, "completed": 1})
	m.mend("redriven")
	if o := m.order("redrive", map[string]any{"fingerprint": m.prints()["redriven"].Fingerprint}, "done"); o.Moved != 2 || o.Completed != 2 {
		t.Errorf("the redrive: %+v", o)
	}
	if o := m.order("purge", map[string]any{"all": true}, "done"); o.Moved != 1 {
		t.Errorf("the purge: %+v", o)
	}
	if left := m.letters(""); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	m.await(map[string]float64{"received": 4, "completed": 3})
	awaitMetric(t, s.System, s.topic, "dead_lettered", 3) // nobody has redriven those of the agent beside it
	s.deniedNothing()
	s.waitsForItsDLQ(m)
}

// waitsForItsDLQ takes the right to write one agent's dead letters away for a while.
func (s *secured) waitsForItsDLQ(m *mortal) {
	s.Helper()
	denial := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Deny("User:" + s.Prefix + "-supervisor").DenyHosts("*").ResourcePatternType(kadm.ACLPatternLiteral).
			Topics(s.Names().DLQ(s.topic, "mortal")).Operations(kadm.OpWrite)
	}
	if _, err := s.admin.CreateACLs(s.Context(), denial()); err != nil {
		s.Fatal(err)
	}
	s.holds(denial(), true)
	s.kinds("denied", "denied", "well", "well")
	eventually(s.T, time.Minute, func() string { return s.alerted(map[string]bool{"mortal": true}) })
	m.await(map[string]float64{"received": 8, "completed": 5}) // what goes elsewhere isn't held up
	awaitMetric(s.T, s.System, s.topic, "dead_lettered", 5)    // the agent beside it has lost no time
	if left := m.letters(""); len(left) != 0 {
		s.Errorf("%v is there, and may not be written", left)
	}

	gone, err := s.admin.DeleteACLs(s.Context(), denial())
	if err != nil || len(gone) != 1 || len(gone[0].Deleted) != 1 {
		s.Fatalf("the denial isn't taken back: %v, %v", gone, err)
	}
	eventually(s.T, time.Minute, func() string { return differ(len(m.letters("")), 2) })
	eventually(s.T, time.Minute, func() string { return s.alerted(map[string]bool{}) })
	m.await(map[string]float64{"received": 8, "completed": 5, "waiting": 0})
}

// alerted compares which agents have an alert about a topic that can't be written.
func (s *secured) alerted(want map[string]bool) string {
	var h struct {
		Alerts []struct{ Topic, Name, Kind, Message string }
	}
	if err := s.Call(s.Context(), http.MethodGet, "/health", nil, &h); err != nil {
		return err.Error()
	}
	got := map[string]bool{}
	for _, a := range h.Alerts {
		if a.Topic == s.topic && a.Kind == "destination_unwritable" {
			got[a.Name] = true
			for _, says := range []string{s.Names().DLQ(s.topic, a.Name), "grant the right to write it"} {
				if !strings.Contains(a.Message, says) {
					return fmt.Sprintf("the alert doesn't say %q: %s", says, a.Message)
				}
			}
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Sprintf("alerts of %v, not %v: %+v", got, want, h.Alerts)
	}
	return ""
}

// kinds publishes an event of each kind.
func (s *secured) kinds(kinds ...string) {
	s.Helper()
	for n, kind := range kinds {
		content := map[string]any{"kind": kind, "n": n}
		call(s.T, s.System, http.MethodPost, "/v1/events", map[string]any{"topic": s.topic, "payload": map[string]any{"content": content}}, nil)
	}
}
