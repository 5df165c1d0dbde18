package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Services are the binaries that Build makes.
func Services() []string { return []string{"registry", "dispatcher", "supervisor", "reeve"} }

// Build builds the services' binaries, and further packages of the tests module by directory, into dir.
func Build(ctx context.Context, dir string, packages ...string) error {
	root, err := Root(ctx)
	if err != nil {
		return err
	}
	for _, service := range Services() {
		if err := build(ctx, root, filepath.Join(dir, service), "./services/"+service+"/cmd/"+service); err != nil {
			return err
		}
	}
	for _, p := range packages {
		if err := build(ctx, root, filepath.Join(dir, filepath.Base(p)), "./tests/"+p); err != nil {
			return err
		}
	}
	return nil
}

func build(ctx context.Context, root, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, b)
	}
	return nil
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
