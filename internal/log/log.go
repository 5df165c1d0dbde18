// Package log makes the logger of a service process: structured lines, one for each thing that an operator would
// act on, nothing per event above debug.
package log

import (
	"io"
	"log/slog"
)

// New is a logger that writes lines of a level (debug, info, warn, error; else info) and above to w, as text or json.
func New(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	if l.UnmarshalText([]byte(level)) != nil {
		l = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
