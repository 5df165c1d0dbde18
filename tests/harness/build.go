package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// EnvBin names a directory that has the binaries of all tests, so that each package doesn't link its own.
const EnvBin = "REEVE_TEST_BIN"

// Services are the binaries that Build makes.
func Services() []string { return []string{"registry", "dispatcher", "supervisor", "reeve"} }

// Build builds the services' binaries, and further packages of the tests module by directory, into dir.
func Build(ctx context.Context, dir string, packages ...string) error {
	root, err := Root(ctx)
	if err != nil {
		return err
	}
	// All at once, since loading the packages takes as long as linking one; and without what only debuggers read.
	args := []string{"build", "-ldflags=-w", "-o", dir + string(filepath.Separator)}
	for _, service := range Services() {
		args = append(args, "./services/"+service+"/cmd/"+service)
	}
	for _, p := range packages {
		args = append(args, "./tests/"+p)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, b)
	}
	return nil
}

// Binaries are built when the first of a package's tests asks for them, unless EnvBin has them, and serve all of them. Its
// methods are safe for concurrent use.
type Binaries struct {
	packages []string
	once     sync.Once
	dir      string
	own      bool
	err      error
}

// NewBinaries are those of the services and of further packages, as Build takes them. Remove takes them away.
func NewBinaries(packages ...string) *Binaries { return &Binaries{packages: packages} }

// Dir is the directory that they are in.
func (b *Binaries) Dir(t testing.TB) string {
	t.Helper()
	b.once.Do(func() {
		if b.dir = os.Getenv(EnvBin); b.dir != "" {
			return
		}
		b.own = true
		if b.dir, b.err = os.MkdirTemp("", "reeve-test-bin-"); b.err == nil {
			b.err = Build(context.Background(), b.dir, b.packages...)
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.dir
}

// Remove takes away what was built.
func (b *Binaries) Remove() {
	b.once.Do(func() {})
	if b.own {
		_ = os.RemoveAll(b.dir) // at worst the system's cleaner of temporary files does it
	}
}

// Root is the repository's directory.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	work := strings.TrimSpace(string(out))
	if work == "" || work == "off" {
		dir, err := os.Getwd()
		return dir, fmt.Errorf("find the repository: no go.work above %s: %w", dir, err)
	}
	return filepath.Dir(work), nil
}
