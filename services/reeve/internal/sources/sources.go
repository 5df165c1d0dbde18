// Package sources tells whether an agent's source files have changed: it compares looks at a directory, by each file's
// size, time and mode.
//
// Looking beats being told here: it needs no watch for every directory, works on every file system, and what a checkout
// or an editor does in many steps is one difference.
package sources

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// limit is how many files and directories are looked at below one directory.
const limit = 20_000

// extensions are those of source files; an executable file is one by its mode.
var extensions = []string{".py", ".js", ".mjs", ".ts", ".go", ".json", ".yaml", ".toml", ".txt", ".env"}

// ErrTooMany says that a directory holds more than is looked at.
var ErrTooMany = fmt.Errorf("it holds more than %d files", limit)

// Look is what was seen of the source files below a directory, by their paths.
type Look map[string]state

type state struct {
	size     int64
	modified time.Time
	mode     fs.FileMode
}

// Take looks at a directory. Hidden directories are left out, and what tools install: node_modules, __pycache__ and
// Python's virtual environments; so are the files and directories of except, absolute paths. What vanishes meanwhile, or
// can't be read, isn't there.
func Take(dir string, except ...string) (Look, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Look{}, nil
	}
	look, seen := Look{}, 0
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if seen++; seen > limit {
			return ErrTooMany
		}
		switch {
		case err != nil:
			return nil
		case slices.Contains(except, path) && e.IsDir(), e.IsDir() && path != root && skipped(path, e.Name()):
			return fs.SkipDir
		case e.IsDir(), slices.Contains(except, path):
			return nil
		}
		if info, err := os.Stat(path); err == nil && isSource(info) {
			look[path] = state{info.Size(), info.ModTime(), info.Mode()}
		}
		return nil
	})
	if errors.Is(err, ErrTooMany) {
		return nil, ErrTooMany
	}
	return look, nil
}

// File is a look at one file.
func File(path string, info fs.FileInfo) Look {
	return Look{path: state{info.Size(), info.ModTime(), info.Mode()}}
}

func skipped(path, name string) bool {
	if strings.HasPrefix(name, ".") || name == "node_modules" || name == "__pycache__" {
		return true
	}
	_, err := os.Stat(filepath.Join(path, "pyvenv.cfg"))
	return err == nil
}

func isSource(info fs.FileInfo) bool {
	return info.Mode().IsRegular() && (info.Mode()&0o111 != 0 || slices.Contains(extensions, filepath.Ext(info.Name())))
}

// Changed are the paths that differ between two looks, sorted.
func Changed(before, after Look) []string {
	var paths []string
	for path, s := range after {
		if old, was := before[path]; !was || old != s {
			paths = append(paths, path)
		}
	}
	for path := range before {
		if _, is := after[path]; !is {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// Settled keeps the last look that was acted on, and tells when a change has come to rest.
type Settled struct {
	acted, last Look
}

// See takes a new look and gives what has changed since it was last acted on, once two looks agree. The first look is
// where things start.
func (s *Settled) See(look Look) []string {
	defer func() { s.last = look }()
	if s.acted == nil {
		s.acted = look
		return nil
	}
	changed := Changed(s.acted, look)
	if len(changed) == 0 || !maps.Equal(s.last, look) {
		return nil
	}
	s.acted = look
	return changed
}
