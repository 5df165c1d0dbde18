package version

import "testing"

func TestWhoUnderstandsWhom(t *testing.T) {
	for _, tt := range []struct {
		a, b              string
		compatible, older bool
	}{
		{"1.2.3", "1.2.3", true, false},
		{"1.2.3", "1.9.0", true, true},
		{"1.9.0", "1.2.3", true, false},
		{"1.2.3", "2.0.0", false, true},
		{"v2.0.0", "1.2.3", false, false},
		{"0.1.0", "0.1.9", true, false},
		{"0.1.0", "0.2.0", false, true},
		{"0.2.0", "1.0.0", false, true},
		{"1.0.0-rc.1", "1.0.0", true, false},
		{"", "1.0.0", true, false},
		{"nonsense", "1.0.0", true, false},
		{"1.-2.0", "1.0.0", true, false},
	} {
		if got := Compatible(tt.a, tt.b); got != tt.compatible {
			t.Errorf("%s and %s: compatible %v", tt.a, tt.b, got)
		}
		if got := Older(tt.a, tt.b); got != tt.older {
			t.Errorf("%s before %s: %v", tt.a, tt.b, got)
		}
	}
}

func TestOwnVersionIsOne(t *testing.T) {
	b := Own()
	if _, ok := numbers(b.Version); !ok || b.Go == "" {
		t.Errorf("%+v", b)
	}
}
