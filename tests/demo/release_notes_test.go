package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// conversation is a running agent, asked line by line.
type conversation struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

func talkToReleaseNotes(t *testing.T) *conversation {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "release-notes")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = "../../deployments/demo/agents/release_notes"
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary)
	cmd.Env = []string{"FAIL_FIRST_TRY=0 8"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return &conversation{t, in, bufio.NewReader(out), cmd}
}

type line struct {
	ID         *string        `json:"id"`
	Status     string         `json:"status"`
	Result     map[string]any `json:"result"`
	Error      string         `json:"error"`
	ErrorClass string         `json:"error_class"`
}

func (c *conversation) ask(request string) line {
	c.t.Helper()
	if _, err := io.WriteString(c.in, request+"\n"); err != nil {
		c.t.Fatal(err)
	}
	b, err := c.out.ReadBytes('\n')
	if err != nil {
		c.t.Fatalf("no answer to %s: %v", request, err)
	}
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		c.t.Fatalf("answer %s: %v", b, err)
	}
	return l
}

func TestReleaseNotesSpeaksTheBaseOfTheProtocol(t *testing.T) {
	c := talkToReleaseNotes(t)
	release := `{"action":"published","repository":{"full_name":"o/r"},"release":{"tag_name":"v1","author":{"login":"ann"}}}`
	task := func(id, attempts string) string {
		return `{"id":"q","type":"task","payload":{"content":` + release + `,"task_id":"` + id + `","delivery_attempts":` + attempts + `}}`
	}
	if l := c.ask(`{"id":"p","type":"ping","payload":{}}`); l.Status != "ok" || *l.ID != "p" || l.Result["health"] == nil {
		t.Errorf("pong: %+v", l)
	}
	if l := c.ask(task("d1", "1")); l.Status != "ok" || l.Result["release"] != "o/r@v1" {
		t.Errorf("notes: %+v", l)
	}
	if l := c.ask(task("d8", "1")); l.Status != "error" || l.ErrorClass != "network" {
		t.Errorf("first try of a delivery that fails first: %+v", l)
	}
	if l := c.ask(task("d8", "2")); l.Status != "ok" {
		t.Errorf("its second try: %+v", l)
	}
	if l := c.ask(`{"id":"b","type":"task","payload":{"content":"eA=="}}`); l.ErrorClass != "invalid_input" {
		t.Errorf("an event that is no release: %+v", l)
	}
	for _, odd := range []string{`{"id":"u","type":"no such type"}`, `[1]`, `no JSON`} {
		if l := c.ask(odd); l.Status != "error" {
			t.Errorf("%s was answered by %+v", odd, l)
		}
	}
	if l := c.ask(`{"type":"shutdown"}`); l.Status != "ok" || l.ID != nil {
		t.Errorf("answer to shutdown: %+v", l)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("exit after shutdown: %v", err)
	}
}
