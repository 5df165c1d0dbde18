package app

import (
	"strings"
	"testing"
	"time"
)

// A projection that comes along is never told of, however far it is behind; one that stands still is.
func TestAProjectionStallsWhenItComesNoFurther(t *testing.T) {
	type look struct{ behind, at int64 }
	for name, c := range map[string]struct {
		looks  []look // 2 s apart
		stalls bool
	}{
		"nothing to read":                 {[]look{{0, 5}, {0, 5}, {0, 5}, {0, 5}, {0, 5}, {0, 5}, {0, 5}, {0, 5}, {0, 5}, {0, 5}}, false},
		"always as far behind, and moves": {[]look{{3, 5}, {3, 6}, {3, 7}, {3, 8}, {3, 9}, {3, 10}, {3, 11}, {3, 12}, {3, 13}, {3, 14}}, false},
		"falls back, and moves":           {[]look{{3, 5}, {9, 6}, {18, 7}, {30, 8}, {40, 9}, {50, 10}, {60, 11}, {70, 12}, {80, 13}, {90, 14}}, false},
		"stands still":                    {[]look{{3, 5}, {4, 5}, {5, 5}, {6, 5}, {7, 5}, {8, 5}, {9, 5}, {10, 5}, {11, 5}, {12, 5}}, true},
		"stood still, and moves":          {[]look{{3, 5}, {4, 5}, {5, 5}, {6, 5}, {7, 5}, {8, 5}, {9, 5}, {10, 5}, {11, 5}, {10, 6}}, false},
		"stands still for a moment":       {[]look{{3, 5}, {4, 5}, {5, 5}, {6, 5}, {7, 5}}, false},
	} {
		var p progress
		now := time.Now()
		for _, l := range c.looks {
			now = now.Add(beat)
			p.note(l.behind, l.at, now)
		}
		if said := p.stalled("tasks", now); (said != "") != c.stalls || c.stalls && !strings.Contains(said, "tasks is 12 records behind") {
			t.Errorf("%s: %q", name, said)
		}
	}
}
