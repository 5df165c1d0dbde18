package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

// files has a directory a language. A template's name ends in .tmpl, so that no tool takes it for source of this module,
// and "dot" at its beginning stands for a dot.
//
//go:embed files
var files embed.FS

// Options say what is made.
type Options struct {
	Lang  string // one of Languages
	Name  string // of the agent, legal
	Topic string // that it listens to, legal
}

// Languages are what there are templates for.
func Languages() []string { return []string{"python", "node", "go", "command"} }

// sample is the event that every template's test and steps use.
const sample = "event.json"

// Step is a command that a person types next, in the agent's directory.
type Step struct {
	Command string
	Remark  string // "" for none
}

// Steps are the way to the first answered event, in order. reeve is how the program is called.
func Steps(reeve string, o Options) []Step {
	dev := Step{reeve + " dev", "stays in the foreground: the next line goes into another terminal"}
	publish := Step{Command: fmt.Sprintf("%s publish %s --content @%s --wait", reeve, o.Topic, sample)}
	run := Step{Command: fmt.Sprintf("%s run --content @%s", reeve, sample)}
	switch o.Lang {
	case "node":
		return []Step{{Command: "node --test"}, run, dev, publish}
	case "go":
		return []Step{{Command: "go test ."}, {Command: "go build -o agent ."}, dev, publish}
	case "command":
		return []Step{{Command: "sh test.sh"}, run, dev, publish}
	}
	return []Step{{Command: "python3 -m unittest"}, run, dev, publish}
}

// InTheWay are the names of what a directory holds, at most so many and then "…", or the directory's own where it is a
// file. It is empty where the directory may be written to, or isn't there yet.
func InTheWay(dir string, limit int) ([]string, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		if st, serr := os.Stat(dir); serr == nil && !st.IsDir() {
			return []string{dir}, nil
		}
		return nil, fmt.Errorf("look into the directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		if len(names) == limit {
			return append(names, "…"), nil
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// Write makes the files in a directory that is empty or not there yet, and gives their names, sorted.
func Write(dir string, o Options) (names []string, err error) {
	content, err := render(o)
	if err != nil {
		return nil, err
	}
	made, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	for name, text := range content {
		if err := create(filepath.Join(dir, name), text); err != nil {
			for _, n := range names {
				_ = os.Remove(filepath.Join(dir, n))
			}
			if made {
				_ = os.Remove(dir)
			}
			return nil, err
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func makeDir(dir string) (made bool, err error) {
	if _, err := os.Stat(dir); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("make the directory: %w", err)
	}
	return true, nil
}

// create writes a file that isn't there yet.
func create(path string, text []byte) error {
	mode := os.FileMode(0o644)
	if filepath.Ext(path) == ".sh" {
		mode = 0o755
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("write the agent: %w", err)
	}
	_, err = f.Write(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("write the agent: %w", err)
	}
	return nil
}

// render gives the files of a language by their names.
func render(o Options) (map[string][]byte, error) {
	dir := "files/" + o.Lang
	entries, err := files.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("there is no template for %q", o.Lang)
	}
	out := map[string][]byte{}
	for _, e := range entries {
		t, err := template.ParseFS(files, dir+"/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("read template: %w", err)
		}
		var b bytes.Buffer
		if err := t.Execute(&b, o); err != nil {
			return nil, fmt.Errorf("fill in template: %w", err)
		}
		name := strings.TrimSuffix(e.Name(), ".tmpl")
		if rest, ok := strings.CutPrefix(name, "dot"); ok {
			name = "." + rest
		}
		out[name] = b.Bytes()
	}
	return out, nil
}
