package sources

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes files of a directory; a name that ends in * is executable.
func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		plain, executable := strings.CutSuffix(name, "*")
		path := filepath.Join(dir, plain)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o600)
		if executable {
			mode = 0o700
		}
		if err := os.WriteFile(path, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func take(t *testing.T, dir string, except ...string) Look {
	t.Helper()
	look, err := Take(dir, except...)
	if err != nil {
		t.Fatal(err)
	}
	return look
}

func names(t *testing.T, dir string, paths []string) []string {
	t.Helper()
	var list []string
	for _, p := range paths {
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rel)
	}
	return list
}

func TestSourceFilesCountAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	source := []string{".env", "a.py", "agent", "deep/er/b.mjs", "e.yaml", "f.toml", "g.txt", "h.json", "i.go", "j.ts", "k.js"}
	write(t, dir, ".env", "a.py", "agent*", "deep/er/b.mjs", "e.yaml", "f.toml", "g.txt", "h.json", "i.go", "j.ts", "k.js",
		"data.db", "log", "image.png", ".git/config.json", ".reeve/a.json", "node_modules/x/index.js", "__pycache__/a.py", "venv/lib/x.py", "venv/pyvenv.cfg",
		"data/kept.json", "agents.yaml")
	got := Changed(nil, take(t, dir, filepath.Join(dir, "data"), filepath.Join(dir, "agents.yaml")))
	if list := names(t, dir, got); !slices.Equal(list, source) {
		t.Errorf("got %v, want %v", list, source)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if n := len(take(t, link)); n != len(source)+2 {
		t.Errorf("through a link there are %d files", n)
	}
	if look := take(t, filepath.Join(dir, "none")); len(look) != 0 {
		t.Errorf("got %v", look)
	}
}

func TestAChangeIsToldOnceItHasComeToRest(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.py", "b.py")
	var s Settled
	see := func(want ...string) {
		t.Helper()
		if got := names(t, dir, s.See(take(t, dir))); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	see()
	see()
	if err := os.Chtimes(filepath.Join(dir, "a.py"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	see() // it may go on
	write(t, dir, "c.py")
	see()
	see("a.py", "c.py")
	see()
	if err := os.Remove(filepath.Join(dir, "b.py")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "d.db")
	see()
	see("b.py")
	write(t, dir, "e.py")
	see()
	if err := os.Remove(filepath.Join(dir, "e.py")); err != nil { // what is undone before it has come to rest never was
		t.Fatal(err)
	}
	see()
	see()
}

func TestADirectoryThatIsTooLargeIsRefused(t *testing.T) {
	dir := t.TempDir()
	for n := range limit + 1 {
		if err := os.Symlink("nowhere", filepath.Join(dir, fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Take(dir); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v", err)
	}
}
