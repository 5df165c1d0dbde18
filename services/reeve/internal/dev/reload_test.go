package dev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// eventually waits until check holds.
func (d *dev) eventually(what string, check func() bool) {
	d.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for !check() {
		select {
		case <-tick.C:
		case <-end:
			d.kill() // so that its log is whole
			d.t.Fatalf("waited in vain until %s\n%s", what, d.log)
		}
	}
}

func (d *dev) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// answers reports whether an event's result has a text in it. While what was broken is found and mended, the agent may just
// have ceased to be active, and the wait for it is refused.
func (d *dev) answers(topic, text string) bool {
	d.t.Helper()
	out, err := d.try("publish", topic, "--content", `"hello"`, "--wait")
	if err != nil {
		d.t.Log(err)
	}
	return strings.Contains(out, text)
}

// once lists an agent that isn't started again after a failed start.
const once = "agents:\n- {topic: t.one, name: a, dir: a, callback: 'callback:handle', process: {max_restart_attempts: 0}}\n"

func TestAgentsFollowTheirFiles(t *testing.T) {
	d := newDev(t)
	d.write("agents.yaml", once)
	d.start()
	defer d.kill()
	if !d.answers("t.one", `{"got":"hello"}`) {
		t.Fatal("it doesn't work to begin with")
	}

	d.write("a/callback.py", strings.ReplaceAll(handler, `"got"`, `"changed"`))
	d.eventually("the agent runs its changed source", func() bool { return d.answers("t.one", `{"changed":"hello"}`) })

	d.write("a/callback.py", "no python at all")
	d.eventually("the broken source is found", func() bool { return strings.Contains(d.reeve("agent", "get", "t.one/a"), "AgentStartupError") })
	d.write("a/callback.py", strings.ReplaceAll(handler, `"got"`, `"mended"`))
	d.eventually("the mended source runs", func() bool {
		return strings.Contains(d.reeve("agent", "list"), "active") && d.answers("t.one", `{"mended":"hello"}`)
	})

	d.write("agents.yaml", "agents:\n- topc: t.two\n")
	d.write("a/callback.py", strings.ReplaceAll(handler, `"got"`, `"still"`))
	d.eventually("it goes on after a file with faults", func() bool { return d.answers("t.one", `{"still":"hello"}`) })

	d.write("agents.yaml", once+"- {topic: t.two, name: new, dir: a, callback: 'callback:handle'}\n")
	d.eventually("the agent that was added is registered", func() bool { return strings.Contains(d.reeve("agent", "list"), "t.two") })
	d.eventually("it runs", func() bool { return d.answers("t.two", `{"still":"hello"}`) })

	d.kill()
	for _, said := range []string{"a/callback.py changed: restarted t.one/a", "agents.yaml changed: the file is refused, nothing was changed:\nagents.yaml:2:3: topc is no key", "agents.yaml changed: it is applied again"} {
		if !strings.Contains(d.log.String(), said) {
			t.Errorf("it didn't say %q:\n%s", said, d.log)
		}
	}
}
