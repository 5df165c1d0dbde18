package pool

import "testing"

func TestAttemptsGoWhereTheLeastIsInFlight(t *testing.T) {
	running := func(n int) load { return load{accepting: true, limit: 4, inFlight: n} }
	alone, claimed := running(1), running(1)
	alone.alone, claimed.claimed = true, true
	for name, tt := range map[string]struct {
		loads           []load
		spread, seclude int
	}{
		"none":                    {nil, -1, -1},
		"the emptiest":            {[]load{running(2), running(1), running(3)}, 1, 1},
		"one that starts":         {[]load{{limit: 4}}, -1, -1},
		"a full one":              {[]load{running(4)}, -1, 0},
		"one that runs one alone": {[]load{alone, running(3)}, 1, 1},
		"one that is claimed":     {[]load{claimed}, -1, -1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := spread(tt.loads); got != tt.spread {
				t.Errorf("spread to %d", got)
			}
			if got := seclude(tt.loads); got != tt.seclude {
				t.Errorf("secluded in %d", got)
			}
		})
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct{ instances, owned, partitions, want int }{
		{1, 8, 8, 1}, {1, 4, 8, 1}, {1, 0, 8, 0}, {4, 8, 8, 4}, {4, 4, 8, 2}, {4, 2, 8, 1}, {3, 4, 8, 2}, {2, 1, 8, 1}, {5, 0, 0, 0},
	} {
		if got := Share(tt.instances, tt.owned, tt.partitions); got != tt.want {
			t.Errorf("Share(%d, %d, %d) = %d, want %d", tt.instances, tt.owned, tt.partitions, got, tt.want)
		}
	}
}
