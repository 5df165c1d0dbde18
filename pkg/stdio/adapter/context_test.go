package adapter_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// dialogue is an adapter that is talked to line by line.
type dialogue struct {
	t     *testing.T
	in    io.WriteCloser
	lines chan map[string]any
	log   *strings.Builder
	cmd   *exec.Cmd
}

func begin(t *testing.T, cmd *exec.Cmd) *dialogue {
	t.Helper()
	d := &dialogue{t: t, lines: make(chan map[string]any, 100), log: new(strings.Builder), cmd: cmd}
	var err error
	if d.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = d.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			var a map[string]any
			if json.Unmarshal(s.Bytes(), &a) == nil {
				d.lines <- a
			}
		}
	}()
	return d
}

func (d *dialogue) say(lines ...string) {
	d.t.Helper()
	if _, err := io.WriteString(d.in, strings.Join(lines, "\n")+"\n"); err != nil {
		d.t.Fatal(err)
	}
}

// hear gives the next line that fits.
func (d *dialogue) hear(what string, fits func(map[string]any) bool) map[string]any {
	d.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case a, ok := <-d.lines:
			if !ok {
				d.t.Fatalf("it ended before %s; its log: %s", what, d.log)
			}
			if fits(a) {
				return a
			}
		case <-limit:
			d.t.Fatalf("never heard %s", what)
		}
	}
}

func (d *dialogue) end() {
	d.t.Helper()
	d.say(`{"type":"shutdown"}`)
	for range d.lines { // or Wait would close the pipe under the reader
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("%v: %s", err, d.log)
	}
}

func message(id, kind string) func(map[string]any) bool {
	return func(a map[string]any) bool { return a["id"] == id && a["type"] == kind }
}

func answer(id string) func(map[string]any) bool {
	return func(a map[string]any) bool { return a["id"] == id && a["status"] != nil }
}

func cancel(id string) string { return fmt.Sprintf(`{"type":"cancel","id":%q}`, id) }

func TestAFunctionTellsAndIsCancelledByItsContext(t *testing.T) {
	for _, l := range languages(t) {
		t.Run(l.name, func(t *testing.T) {
			d := begin(t, l.command("testdata", "agent", "told"))
			d.say(do("wait"))
			if p := d.hear("progress", message("wait", "progress")); p["fraction"] != 0.5 || p["message"] != "half of it" {
				t.Errorf("progress %v", p)
			}
			p := d.hear("a publication", message("wait", "publish"))
			if b, _ := json.Marshal(p["content"]); p["topic"] != "news" || p["key"] != "k" || p["event_type"] != "t" || string(b) != `{"n":1}` {
				t.Errorf("published %v", p)
			}
			d.say(cancel("wait"), cancel("nobody's"))
			if a := d.hear("the end", answer("wait")); a["status"] != "error" {
				t.Errorf("a cancelled task answered %v", a)
			}
			d.say(do("stubborn"))
			d.hear("a publication", message("stubborn", "publish"))
			d.say(cancel("stubborn"))
			a := d.hear("the end", answer("stubborn"))
			if b, _ := json.Marshal(a["result"]); string(b) != `{"cancelled":true}` {
				t.Errorf("one that completes all the same answered %v", a)
			}
			d.say(do("short"))
			a = d.hear("the end", answer("short"))
			if b, _ := json.Marshal(a["result"]); string(b) != `{"cancelled":false}` {
				t.Errorf("answered %v", a)
			}
			d.end()
			if !strings.Contains(d.log.String(), "INFO [") || !strings.Contains(d.log.String(), "it has begun") {
				t.Errorf("the log is %s", d.log)
			}
		})
	}
}

func TestATaskIsCancelledBeforeItHasBegunAndInAThread(t *testing.T) {
	for _, l := range languages(t) {
		t.Run(l.name, func(t *testing.T) {
			d := begin(t, l.command("testdata", "agent", "told"))
			d.say(do("wait") + "\n" + cancel("wait"))
			if a := d.hear("the end", answer("wait")); a["status"] != "error" {
				t.Errorf("answered %v", a)
			}
			d.end()
			d = begin(t, l.command("testdata", "agent", "thread"))
			d.say(do("long"))
			if p := d.hear("progress", message("long", "progress")); p["fraction"] != nil || p["message"] != "in a thread" {
				t.Errorf("progress %v", p)
			}
			d.say(cancel("long"))
			if a := d.hear("the end", answer("long")); a["error"] != "stopped" {
				t.Errorf("answered %v", a)
			}
			d.end()
		})
	}
}

// An answer says that the work has ended, so it must not come while a thread that can't be cancelled goes on.
func TestACancelledPythonTaskIsAnsweredOnlyWhenWhatItBeganHasEnded(t *testing.T) {
	l := languages(t)[0]
	if l.name != "python" {
		t.Skip("Python isn't installed")
	}
	d := begin(t, l.command("testdata", "agent", "behind"))
	for _, id := range []string{"thread", "task"} {
		d.say(do(id))
		d.hear("the beginning", message(id, "progress"))
		d.say(cancel(id))
		if p := d.hear("the thread's end or the answer", func(a map[string]any) bool { return a["id"] == id }); p["message"] != "ended" {
			t.Errorf("%s: heard %v before its thread had ended", id, p)
		}
		if a := d.hear("the answer", answer(id)); a["status"] != "error" {
			t.Errorf("%s: answered %v", id, a)
		}
	}
	d.end()
}

func TestAPythonFunctionThatReturnsWhatIsAwaitedIsCancelled(t *testing.T) {
	l := languages(t)[0]
	if l.name != "python" {
		t.Skip("Python isn't installed")
	}
	d := begin(t, l.command("testdata", "agent", "deferred"))
	d.say(do("wait"))
	d.hear("progress", message("wait", "progress"))
	d.say(cancel("wait"))
	if a := d.hear("the end", answer("wait")); a["status"] != "error" {
		t.Errorf("answered %v", a)
	}
	d.end()
}
