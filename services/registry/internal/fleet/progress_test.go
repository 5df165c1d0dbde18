package fleet

import (
	"strconv"
	"testing"

	"github.com/reeve-run/reeve/pkg/status"
)

func TestTheLatestProgressIsRememberedWithinBounds(t *testing.T) {
	f := New()
	tell := func(task string, at float64, message string) {
		f.progressed(status.Progress{Topic: "t", AgentName: "a", Task: task, Timestamp: at, Message: message})
	}
	tell("t/0/1", 5, "late")
	tell("t/0/1", 4, "early, and heard later")
	if p, ok := f.Progress("t/a", "t/0/1"); !ok || p.Message != "late" {
		t.Errorf("%+v, %v", p, ok)
	}
	if _, ok := f.Progress("t/b", "t/0/1"); ok {
		t.Error("another agent's")
	}
	for i := range 3 * maxProgress {
		tell("t/1/"+strconv.Itoa(i), float64(i), "")
	}
	if len(f.progress) > maxProgress {
		t.Errorf("%d are remembered", len(f.progress))
	}
	if _, ok := f.Progress("t/a", "t/1/"+strconv.Itoa(3*maxProgress-1)); !ok {
		t.Error("the latest is forgotten")
	}
}
