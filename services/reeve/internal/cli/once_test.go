package cli

import (
	"strings"
	"testing"
)

func TestASecondFileIsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"apply", "-f", "a.yaml", "-f", "b.yaml"},
		{"apply", "-f", "a.yaml", "--file=b.yaml"},
		{"topics", "-f", "a.yaml", "-f", "b.yaml"},
	} {
		if _, errs, code := offKafka(t, nil, args...); code != Usage || !strings.Contains(errs, "it is given twice") {
			t.Errorf("%v: exit code %d, %s", args, code, errs)
		}
	}
	if out, errs, code := offKafka(t, nil, "acls", "--agent", "t/a", "-o", "yaml", "-o", "json"); code != Done || !strings.HasPrefix(out, "{") {
		t.Errorf("of other flags the last counts: exit code %d, %s", code, errs)
	}
}

// Without a place for the agents' directories doctor doesn't take the working directory for one.
func TestDoctorLooksForAgentsOnlyWhereTheyAreSaidToBe(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		place plan
		env   []string
		want  string
	}{
		{plan{}, nil, ""},
		{plan{file: dir + "/agents.yaml"}, nil, dir},
		{plan{file: dir + "/agents.yaml"}, []string{"REEVE_AGENTS_DIR=/elsewhere"}, "/elsewhere"},
		{plan{file: dir + "/agents.yaml", agentsDir: "/there"}, []string{"REEVE_AGENTS_DIR=/elsewhere"}, "/there"},
	} {
		c := &command{System: System{Environ: tt.env}}
		if got := c.agentsPlace(tt.place); got != tt.want {
			t.Errorf("%+v with %v: %q, want %q", tt.place, tt.env, got, tt.want)
		}
	}
}
