package redrive

import (
	"strings"
	"testing"
)

// A letter is a step: 1 begins singly, m moves as many as there is room for, c s o g end one.
func TestPaceGrowsWithSuccessAndStopsWhereItIsHopeless(t *testing.T) {
	for name, c := range map[string]struct {
		steps    string
		room     int
		hopeless bool
	}{
		"it begins with few":                        {"", 5, false},
		"and waits for them":                        {"m", 0, false},
		"one that is completed makes room for two":  {"mc", 2, false},
		"so it doubles":                             {"mcccccm", 0, false},
		"all that came first are completed":         {"mccccc", 10, false},
		"one that was cancelled makes room for one": {"mg", 1, false},
		"four are no proof":                         {"mssss", 0, false},
		"five that came back as they were":          {"msssss", 0, true},
		"another failure is no proof":               {"mooooo", 5, false},
		"but ten of any are":                        {"mooooomooooo", 0, true},
		"some of each":                              {"mssssommooooo", 0, true},
		"what succeeds makes up for it":             {"mccccc" + "mssss" + "cccc" + "ss", 4, false},
		"a single bad one in ten goes on for ever":  {"m" + strings.Repeat("cccccccccsm", 200), 0, false},
		"a fault that comes later stops it":         {"mcccccmccccccccccm" + "sssss", 0, true},
		"singly, one goes first":                    {"1m", 0, false},
		"and the next when it has failed":           {"1ms", 1, false},
		"five in a row prove it":                    {"1msmsmsmsms", 0, true},
		"and five when the first is completed":      {"1mc", 6, false},
		"also where one has failed before":          {"1msmc", 6, false},
		"it shrinks when tasks come back":           {"mccccc" + "mss" + "gggggg", 2, false},
	} {
		var p Pace
		for _, s := range c.steps {
			switch s {
			case '1':
				p.Singly = true
			case 'm':
				for range p.Room() {
					p.Move()
				}
			case 'c':
				p.End(completed)
			case 's':
				p.End(same)
			case 'o':
				p.End(other)
			case 'g':
				p.End(gone)
			}
		}
		if p.Hopeless() != c.hopeless || p.Room() != c.room && !strings.HasPrefix(name, "a single") {
			t.Errorf("%s (%s): room %d, hopeless %v; want %d, %v: %+v", name, c.steps, p.Room(), p.Hopeless(), c.room, c.hopeless, p)
		}
		if (p.Reason("x") != "") != c.hopeless {
			t.Errorf("%s: %q", name, p.Reason("x"))
		}
	}
}
