package jsonlex

import (
	"encoding/json"
	"testing"
)

// What is taken whole is what encoding/json takes.
func FuzzWords(f *testing.F) {
	for _, s := range []string{`"a"`, `"\u00e9\n"`, `"\x"`, `"12345678\"90"`, "\"\x01\"", `"`, `-0.5e+7`, `01`, `1.`, `-`, `1e`, ` `, `true`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || Space(b[len(b)-1:], 0) == 1 {
			return // encoding/json allows space around
		}
		got := false
		switch c := b[0]; {
		case c == '"':
			got = String(b, 1) == len(b)
		case c == '-' || c >= '0' && c <= '9':
			got = Number(b, 0) == len(b)
		default:
			return
		}
		if want := json.Valid(b); got != want {
			t.Fatalf("%q: %v, encoding/json says %v", b, got, want)
		}
	})
}

func TestAWordThatIsCutShortIsNone(t *testing.T) {
	for _, s := range []string{"", "t", "tru"} {
		if Word([]byte(s), 0, "true") != -1 {
			t.Errorf("%q passes", s)
		}
	}
	for _, s := range []string{"", "-", "x"} {
		if Number([]byte(s), 0) != -1 {
			t.Errorf("%q passes", s)
		}
	}
}
