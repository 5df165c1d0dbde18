package harness

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func record(headers ...string) *kgo.Record {
	r := &kgo.Record{}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestAnOutcomeIsReadOrRefused(t *testing.T) {
	o, err := ParseOutcome(record(task.HeaderOrigin, "t/1/2/uuid", task.HeaderAgent, "t/a", task.HeaderAttempt, "2", task.HeaderOutcome, "completed",
		task.HeaderSettled, "done", task.HeaderFinal, "true", task.HeaderRunner, "s0 s0-1", task.HeaderTimes, "1000 1001 1002 1003"))
	if err != nil {
		t.Fatal(err)
	}
	want := Outcome{Origin: "t/1/2", Agent: "t/a", Attempt: 2, Outcome: task.Completed, Settled: task.SettledDone, Final: true, Node: "s0",
		Published: time.UnixMilli(1000), Dispatched: time.UnixMilli(1001), Started: time.UnixMilli(1002), Ended: time.UnixMilli(1003)}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("%+v, not %+v", o, want)
	}
	for name, r := range map[string]*kgo.Record{
		"no origin":   record(task.HeaderOutcome, "completed"),
		"no outcome":  record(task.HeaderOrigin, "t/1/2"),
		"bad origin":  record(task.HeaderOrigin, "t/1", task.HeaderOutcome, "completed"),
		"bad attempt": record(task.HeaderOrigin, "t/1/2", task.HeaderOutcome, "completed", task.HeaderAttempt, "two"),
		"bad times":   record(task.HeaderOrigin, "t/1/2", task.HeaderOutcome, "completed", task.HeaderTimes, "1 2"),
	} {
		if _, err := ParseOutcome(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAProcessIsFoundByItsMarkUntilItEnds(t *testing.T) {
	mark := "HARNESS_TEST_MARK=" + t.TempDir()
	cmd := exec.Command("sleep", "60")
	cmd.Env = append(os.Environ(), mark)
	s := newSpawner()
	defer s.close()
	if err := s.start(cmd); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// A process that was just started shows its environment a moment later.
	found := Marked(mark)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); len(found) == 0 && time.Now().Before(end); found = Marked(mark) {
		<-tick.C
	}
	if !slices.Equal(found, []Identity{id}) || !id.Alive() {
		t.Errorf("found %v, not %v", found, id)
	}
	if !slices.Contains(Children(os.Getpid()), id.PID) {
		t.Error("it is no child of this process")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if found = Marked(mark); len(found) != 0 || id.Alive() {
		t.Errorf("after its end: found %v", found)
	}
}
