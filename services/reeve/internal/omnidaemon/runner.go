package omnidaemon

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed reader.py
var reader string

// readLimit bounds the parser's time; a runner takes it a fraction of a second.
const readLimit = 30 * time.Second

// A Note is something about a runner that isn't translated, or not as it was.
type Note struct {
	Line int // in the runner, from 1
	Text string
}

// Runner is what a runner registers.
type Runner struct {
	path   string
	agents []registered
	notes  []Note // of the runner as a whole
}

// registered is one registration of a runner.
type registered struct {
	line   int
	fields map[string]any // by their names in agents.yaml, sections with a dot
	notes  []Note
	lost   string // why it can't be translated, "" where it can
}

// ErrNoPython says that there is no Python to parse with.
var ErrNoPython = errors.New("python3 isn't on the PATH: the runner is parsed by Python's own parser, and not run: install Python 3.8 or newer")

// SyntaxError is a runner that Python doesn't take.
type SyntaxError struct {
	Path         string
	Line, Column int // from 1; 0 where the file as a whole is meant
	Message      string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: is no Python: %s", e.Path, e.Message)
	}
	return fmt.Sprintf("%s:%d:%d: is no Python: %s", e.Path, e.Line, e.Column, e.Message)
}

// Read parses a runner with the python3 of an environment in the form of os.Environ. The error is ErrNoPython, a
// *SyntaxError, or that the file can't be read.
func Read(ctx context.Context, path string, environ []string) (*Runner, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the runner: %w", err)
	}
	python, err := interpreter(environ)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-I", "-c", reader, path) // -I: nothing of this directory is imported
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env, cmd.WaitDelay = bytes.NewReader(source), &out, &errs, environ, time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("parse %s by %s: %w: %s", path, python, err, strings.TrimSpace(errs.String()))
	}
	return decode(path, out.Bytes())
}

func interpreter(environ []string) (string, error) {
	for _, e := range slices.Backward(environ) {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			path := filepath.Join(dir, "python3")
			if st, err := os.Stat(path); err == nil && filepath.IsAbs(dir) && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return path, nil
			}
		}
		break
	}
	return "", ErrNoPython
}

// decode reads the parser's answer.
func decode(path string, answer []byte) (*Runner, error) {
	var a struct {
		Error  []any
		Agents []struct {
			Line   int
			Fields [][2]any
			Notes  [][2]any
			Lost   string
		}
		Notes [][2]any
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("read what the parser made of %s: %w", path, err)
	}
	if len(a.Error) == 3 {
		line, _ := a.Error[0].(float64)
		column, _ := a.Error[1].(float64)
		return nil, &SyntaxError{path, int(line), int(column), fmt.Sprint(a.Error[2])}
	}
	r := &Runner{path: path, notes: notes(a.Notes)}
	for _, x := range a.Agents {
		g := registered{line: x.Line, fields: map[string]any{}, notes: notes(x.Notes), lost: x.Lost}
		for _, f := range x.Fields {
			g.fields[fmt.Sprint(f[0])] = f[1]
		}
		r.agents = append(r.agents, g)
	}
	return r, nil
}

func notes(pairs [][2]any) []Note {
	var ns []Note
	for _, p := range pairs {
		line, _ := p[0].(float64)
		ns = append(ns, Note{int(line), fmt.Sprint(p[1])})
	}
	return ns
}
