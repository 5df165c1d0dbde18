package proc_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/internal/proc"
)

func TestKillMarkedFindsWhatGotAway(t *testing.T) {
	life, err := proc.Life(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	mine := proc.Mark{Host: "h", Node: "n", Life: life, Instance: "a/b/1"}
	cmd := exec.Command("sh", "-c", "setsid sleep 300 & exec sleep 300")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), mine.Env()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := proc.KillMarked(proc.Of(proc.Mark{Host: "h", Node: "n", Life: "1.1"})); n != 0 || err != nil {
		t.Fatalf("another life's processes: %d, %v", n, err)
	}
	if n, err := proc.KillMarked(proc.Left("h", "n", proc.Alive)); n != 0 || err != nil {
		t.Fatalf("the starter lives, and %d of its processes were killed: %v", n, err)
	}
	if n, err := proc.KillMarked(proc.Of(mine)); n < 1 || err != nil {
		t.Fatalf("killed %d: %v", n, err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the process ended with %v", err)
	}
}

func TestYoungFindsWhatStartedSince(t *testing.T) {
	mine := proc.Mark{Host: "h", Node: "young", Life: "1.1", Instance: "i"}
	begin := func() *exec.Cmd {
		cmd := exec.Command("sleep", "300")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), mine.Env()}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_, _ = cmd.Process.Wait()
		})
		return cmd
	}
	before := time.Now()
	old := begin()
	<-time.After(50 * time.Millisecond)
	between := time.Now()
	young := begin()
	for _, tt := range []struct {
		since time.Time
		want  []int
	}{{before, []int{old.Process.Pid, young.Process.Pid}}, {between, []int{young.Process.Pid}}, {time.Now().Add(time.Second), nil}} {
		got, err := proc.Young(proc.Of(mine), tt.since)
		slices.Sort(got)
		slices.Sort(tt.want)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("got %v, %v, not %v", got, err, tt.want)
		}
	}
	if err := young.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for state := byte(0); state != 'Z'; { // it isn't waited for yet
		s, err := proc.Read(young.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		state = s.State
	}
	if got, err := proc.Young(proc.Of(mine), between); len(got) != 0 || err != nil {
		t.Errorf("after its end: %v, %v", got, err)
	}
}

func TestMarkReadsBack(t *testing.T) {
	m := proc.Mark{Host: "h", Node: "n", Life: "1.2", Instance: "topic/name/0"}
	if got, ok := proc.ParseMark(m.String()); !ok || got != m {
		t.Errorf("got %+v, %t", got, ok)
	}
	for _, s := range []string{"", "a", "a/b/c", "//c/d"} {
		if _, ok := proc.ParseMark(s); ok {
			t.Errorf("%q was taken for a mark", s)
		}
	}
}

func TestAliveTellsARunFromALaterOne(t *testing.T) {
	life, err := proc.Life(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]bool{life: true, life + "1": false, "": false, "x.y": false, "999999999.1": false} {
		if got := proc.Alive(s); got != want {
			t.Errorf("Alive(%q) = %t", s, got)
		}
	}
}
