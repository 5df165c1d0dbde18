package agentsfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// A Fault is one thing wrong with a file, and where. Lines and columns count from 1; 0 is the file as a whole.
type Fault struct {
	File    string
	Line    int
	Column  int
	Message string // what is wrong and what to do
}

func (f Fault) Error() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.File, f.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Message)
}

// Faults is everything wrong with a file, in the order of its lines. It is never empty where it is an error.
type Faults []Fault

func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// collector gathers faults; the walk goes on after each of them.
type collector struct {
	file   string
	faults Faults
}

func (c *collector) at(t *token.Token, format string, args ...any) {
	f := Fault{File: c.file, Message: fmt.Sprintf(format, args...)}
	if t != nil && t.Position != nil {
		f.Line, f.Column = t.Position.Line, t.Position.Column
	}
	c.faults = append(c.faults, f)
}

// err is the sorted faults, or nil where there are none.
func (c *collector) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(c.faults, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return c.faults
}
