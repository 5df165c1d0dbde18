package log

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

func TestLevelAndFormatAreKept(t *testing.T) {
	var b bytes.Buffer
	l := New(&b, "warn", "json")
	l.Info("quiet")
	l.Warn("loud", slog.Int("n", 1))
	var line struct {
		Msg string
		N   int
	}
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Msg != "loud" || line.N != 1 {
		t.Errorf("%q: %v", b.String(), err)
	}
	b.Reset()
	New(&b, "", "text").Info("hello")
	if !strings.Contains(b.String(), "level=INFO msg=hello") {
		t.Errorf("%q", b.String())
	}
}
